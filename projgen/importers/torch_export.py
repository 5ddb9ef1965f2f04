"""PyTorch modules and torch.export programs as float-stage graphs of the IR.

torch.export records the module once, for a batch that occurs nowhere else in the model, in the functional form of
its training IR: RNNs stay whole there. Each aten operator is then turned into nodes by its handler
(``projgen.importers.torch``). The graph is static; ``projgen.passes`` restores a symbolic time axis.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind

from projgen.errors import InputError, InputTypeError, UnsupportedError
from projgen.importers.torch import HANDLERS
from projgen.importers.torch.attention import UNBUILT, Merged, Scores, regrouped, unbuilt
from projgen.importers.torch.context import RESHAPES, Call, Importer, Operand, Refused, Stack, Tracked
from projgen.importers.torch.shapes import keeps_batch
from projgen.ir.graph import Graph
from projgen.pca.attention import split_attention

_CHECKS = frozenset({"_assert_scalar", "_assert_tensor_metadata", "_assert_async", "sym_constrain_range_for_size"})
_BY_SHAPE = frozenset({"zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full"})
_EXPORT_FAULTS = (RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError, AssertionError)


def import_module(module: nn.Module, example: Sequence[Tensor], name: str = "model") -> Graph:
    """The float-stage graph of a module.

    Args:
        module: any module that torch.export can record; it is not modified.
        example: one tensor per argument of ``forward``; axis 0 is the batch, of any size.
        name: of the graph.
    Raises:
        UnsupportedError: the module can't be recorded, or uses an operator that projgen does not compile.
        InputError, InputTypeError: the example is unusable.
    """
    inputs = _check_example(example)
    batch = _distinct_batch(module, inputs)
    repeated = tuple(_repeat(x, batch) for x in inputs)
    frozen = split_attention(copy.deepcopy(module).cpu().float().eval())  # projections as layers, each by its name
    try:
        with torch.no_grad(), _quiet():
            program = torch.export.export(frozen, repeated)
    except _EXPORT_FAULTS as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UnsupportedError(
            f"torch.export can't record {type(module).__name__}: {reason[0]}",
            "a module whose forward depends on shapes alone and takes any batch size",
            "the model",
        ) from error
    return import_program(program, name)


def import_program(program: ExportedProgram, name: str = "model") -> Graph:
    """The float-stage graph of a torch.export program, such as a loaded ``.pt2`` file.

    Axis 0 of every input is the batch; it may be a fixed size or dynamic. Raises as ``import_module``.
    """
    with _quiet():
        functional = program.run_decompositions({})
    sizes = _Sizes(functional)
    importer = Importer(name, sizes.batch)
    _bind_inputs(importer, functional, sizes)
    for node in functional.graph.nodes:
        if node.op == "call_function":
            importer.env[node] = _visit(importer, node, sizes)
    _bind_outputs(importer, functional)
    return importer.graph()


@contextmanager
def _quiet() -> Iterator[None]:
    """torch.export without its warnings and without its own report of an error that is raised anyway."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


class _Sizes:
    """Concrete sizes of a program whose batch may be dynamic."""

    def __init__(self, program: ExportedProgram) -> None:
        by_name = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
        users = [by_name[user] for user in program.graph_signature.user_inputs if isinstance(user, str)]
        tensors = [node.meta["val"] for node in users if isinstance(node.meta["val"], Tensor)]
        if not tensors or any(t.ndim == 0 for t in tensors):
            raise UnsupportedError("a model without tensor inputs", "inputs whose axis 0 is the batch", "the model")
        first = tensors[0].shape[0]
        self._symbol: Any = None
        if isinstance(first, int):
            self.batch = first
            if first < 2:
                raise InputError(
                    f"a program exported with a fixed batch of {first} hides which axis is the batch",
                    "a batch of 2 or more, or a dynamic one",
                    "torch.export.export",
                )
        else:
            self._symbol = first.node.expr
            fixed = {d for node in program.graph.nodes for d in _dims(node.meta.get("val")) if isinstance(d, int)}
            fixed.update(d for t in program.state_dict.values() for d in t.shape)
            self.batch = _prime_outside(fixed)
        for node, t in zip(users, tensors, strict=False):
            if self.size(t.shape[0], node.name) != self.batch:
                raise InputError(
                    f"axis 0 of input {node.name!r} has size {t.shape[0]}, that of the first input {first}",
                    "the same batch for every input",
                    "the model's inputs",
                )

    def size(self, dim: Any, where: str) -> int:
        """A size as an integer; a dynamic batch becomes the distinct one."""
        if isinstance(dim, int):
            return dim
        value = dim.node.expr if self._symbol is None else dim.node.expr.subs({self._symbol: self.batch})
        if not value.is_number:
            raise UnsupportedError(
                f"a dynamic axis of size {dim} at node {where!r}",
                "a dynamic batch alone; export with every other axis fixed (the time axis of RNNs is restored)",
                "the exported program",
            )
        return int(value)

    def shape(self, value: Any, where: str) -> tuple[int, ...]:
        """The torch shape of a node's (first) result; () where it has none."""
        if isinstance(value, list | tuple):
            return self.shape(value[0], where) if value else ()
        return tuple(self.size(d, where) for d in value.shape) if isinstance(value, Tensor) else ()


def _dims(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return [d for part in value for d in _dims(part)]
    return list(value.shape) if isinstance(value, Tensor) else []


def _prime_outside(sizes: set[int]) -> int:
    """The smallest prime from 3 up that is none of these sizes and divides none of them."""
    candidate = 3
    while any(candidate % d == 0 for d in range(2, candidate)) or any(s and s % candidate == 0 for s in sizes):
        candidate += 2
    return candidate


def _check_example(example: Sequence[Tensor]) -> tuple[Tensor, ...]:
    given = (example,) if isinstance(example, Tensor) else tuple(example)
    for x in given:
        if not isinstance(x, Tensor):
            raise InputTypeError(f"an example input of type {type(x).__name__}", "tensors", "example")
        if x.ndim < 1 or x.shape[0] < 1:
            raise InputError(f"an example input of shape {tuple(x.shape)}", "(batch, ...) with a batch", "example")
    if not given:
        raise InputError("no example input", "one tensor per argument of forward", "example")
    return tuple(x.detach().cpu().float() if x.is_floating_point() else x.detach().cpu() for x in given)


def _distinct_batch(module: nn.Module, inputs: Sequence[Tensor]) -> int:
    sizes = {d for t in (*module.parameters(), *module.buffers()) for d in t.shape}
    return _prime_outside(sizes | {d for x in inputs for d in x.shape[1:]})


def _repeat(x: Tensor, batch: int) -> Tensor:
    return x[torch.arange(batch) % x.shape[0]]


def _bind_inputs(importer: Importer, program: ExportedProgram, sizes: _Sizes) -> None:
    stored = {**program.constants, **program.state_dict}
    specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    for node in program.graph.nodes:
        if node.op != "placeholder":
            continue
        spec = specs[node.name]
        if spec.kind is not InputKind.USER_INPUT:
            importer.env[node] = stored[spec.target]
        elif isinstance(spec.arg, ConstantArgument):
            importer.env[node] = spec.arg.value
        else:
            value = node.meta["val"]
            if not isinstance(value, Tensor) or value.dtype != torch.float32:
                kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
                raise UnsupportedError(f"input {node.name!r} is {kind}", "float32 tensors", "the model's inputs")
            importer.env[node] = importer.add_input(node.name, sizes.shape(value, node.name))


def _bind_outputs(importer: Importer, program: ExportedProgram) -> None:
    (output,) = (node for node in program.graph.nodes if node.op == "output")
    specs = program.graph_signature.output_specs
    results = []
    for spec, node in zip(specs, output.args[0], strict=True):
        if spec.kind is OutputKind.BUFFER_MUTATION:
            raise UnsupportedError(
                f"forward changes the buffer {spec.target!r}", "a model without state of its own", "the model"
            )
        if spec.kind is OutputKind.USER_OUTPUT and node is not None:
            results.append(node)
    if not results:
        raise UnsupportedError("the model returns no tensor", "at least one output", "the model")
    for number, node in enumerate(results):
        label = "output" if len(results) == 1 else f"output{number}"
        call = Call(node, "output", "", {}, "", label, ()) if isinstance(node, torch.fx.Node) else None
        value = importer.materialise(call, importer.env[node]) if call is not None else node
        if isinstance(value, Refused):
            raise UnsupportedError(f"output {number}: {value.what}", value.allowed, "the model's outputs")
        if isinstance(value, Merged | Scores):
            raise UnsupportedError(
                f"output {number} has the batch merged with another axis, or holds the scores or weights of attention",
                "the batch as axis 0 of its own, and what attention attends to as its only result",
                "the model's outputs",
            )
        if not isinstance(value, Tracked) or importer.is_input(value.value):
            raise UnsupportedError(
                f"output {number} is a constant or an input", "outputs that are computed", "the model's outputs"
            )
        if value.batch != 0:
            raise UnsupportedError(
                f"output {number} (node {node.name!r}) has the batch as axis {value.batch}",
                "the batch as axis 0 (transpose it in forward)",
                "the model's outputs",
            )
        importer.add_output(label, value)


def _visit(importer: Importer, node: torch.fx.Node, sizes: _Sizes) -> Operand:
    """The operand a node stands for: folded where it is constant, else what its handler makes of it."""
    if isinstance(node.meta.get("val"), int | float | torch.SymInt):
        return sizes.size(node.meta["val"], node.name)
    if not isinstance(node.target, torch._ops.OpOverload):
        return _builtin(importer, node)
    if (op := node.target._opname) in _CHECKS:
        return None
    arguments = _arguments(importer, node)
    source, base = _origin(node, op)
    call = Call(
        node, op, node.target._overloadname, arguments, source, base, sizes.shape(node.meta.get("val"), node.name)
    )
    if not any(_is_live(value) for value in arguments.values()):
        return _fold(node, arguments)
    if op in _BY_SHAPE:
        shape_only = {k: _blank(v, sizes, node, k) if isinstance(v, Tracked) else v for k, v in arguments.items()}
        return _fold(node, shape_only)
    if op not in HANDLERS:
        raise UnsupportedError(
            f"operator aten.{op} (node {node.name!r}) is not supported", ", ".join(sorted(HANDLERS)), call.where
        )
    result = _handled(importer, call)
    if isinstance(result, Tracked) and importer.torch_shape(result) != call.shape:
        raise RuntimeError(f"{call.where}: imported as {importer.torch_shape(result)}, torch has {call.shape}")
    return result


def _handled(importer: Importer, call: Call) -> Operand:
    """What a call's handler makes of it, or the operand with the batch inside a merged axis."""
    if any(isinstance(value, UNBUILT) for value in call.args.values()):
        return unbuilt(importer, call)
    x = call.args.get("self")
    if call.op in RESHAPES and isinstance(x, Tracked) and not keeps_batch(importer, x, call.shape):
        return regrouped(importer, call, x, call.shape)
    return HANDLERS[call.op](importer, call)


def _builtin(importer: Importer, node: torch.fx.Node) -> Operand:
    """Python's own operators in the program: ``getitem`` on an operator's results."""
    if getattr(node.target, "__name__", "") != "getitem":
        raise UnsupportedError(f"operator {node.target} (node {node.name!r}) is not supported", "", "the model")
    results, index = node.args
    assert isinstance(results, torch.fx.Node) and isinstance(index, int)
    return importer.env[results][index]


def _arguments(importer: Importer, node: torch.fx.Node) -> Mapping[str, Operand]:
    """A call's arguments by the schema's names, defaults included, nodes replaced by what they stand for."""
    assert isinstance(node.target, torch._ops.OpOverload)
    keep_stack = node.target._opname == "select"
    call = Call(node, node.target._opname, "", {}, *_origin(node, node.target._opname), ())

    def resolve(value: Any) -> Operand:
        if isinstance(value, torch.fx.Node):
            found = importer.env[value]
            return found if keep_stack else importer.materialise(call, found)
        return [resolve(item) for item in value] if isinstance(value, list | tuple) else value

    bound: dict[str, Operand] = {}
    for position, argument in enumerate(node.target._schema.arguments):
        if position < len(node.args):
            bound[argument.name] = resolve(node.args[position])
        elif argument.name in node.kwargs:
            bound[argument.name] = resolve(node.kwargs[argument.name])
        elif argument.has_default_value():
            bound[argument.name] = argument.default_value
    return bound


def _is_live(value: Operand) -> bool:
    if isinstance(value, list | tuple):
        return any(_is_live(item) for item in value)
    return isinstance(value, Tracked | Stack | Refused | Merged | Scores)


def _fold(node: torch.fx.Node, arguments: Mapping[str, Operand]) -> Operand:
    """The value of a call on constants."""
    assert isinstance(node.target, torch._ops.OpOverload)
    schema = node.target._schema.arguments
    positional = [arguments[a.name] for a in schema if not a.kwarg_only]
    named = {a.name: arguments[a.name] for a in schema if a.kwarg_only and a.name in arguments}
    if "device" in named:
        named["device"] = torch.device("cpu")
    with torch.no_grad():
        result = node.target(*positional, **named)
    return tuple(result) if isinstance(result, list | tuple) else result


def _blank(_value: Tracked, sizes: _Sizes, node: torch.fx.Node, name: str) -> Tensor:
    """A tensor of an argument's torch shape, for operators that read nothing but that."""
    argument = node.args[0] if name == "self" else node.kwargs[name]
    assert isinstance(argument, torch.fx.Node)
    return torch.empty(sizes.shape(argument.meta["val"], node.name))


def _origin(node: torch.fx.Node, op: str) -> tuple[str, str]:
    """Path of the module a node came from, and a name for its IR nodes.

    A stock layer lends its path (``conv1``, ``lstm``); an operator called by a user's module adds its own name
    (``block1.add``). The inner network of a projected layer counts as the layer itself.
    """
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path, kind, inner = "", "", ""
    for full, cls in stack:
        cls_name = cls if isinstance(cls, str) else f"{cls.__module__}.{cls.__qualname__}"
        part = full[len(inner) + 1 :] if inner and full.startswith(inner + ".") else full
        if kind.endswith(".ProjectedLayer") and (part == "network" or part.startswith("network.")):
            part = part[len("network.") :]
        path = ".".join(p for p in (path if inner else "", part) if p)
        kind, inner = cls_name, full
    short = op.strip("_")
    is_layer = (kind.startswith("torch.nn.modules.") and ".container." not in kind) or short in {"lstm", "gru"}
    base = path if is_layer and path else f"{path}.{short}" if path else short
    return path, base if not base[:1].isdigit() else f"{short}_{base}"
