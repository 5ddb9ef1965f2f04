"""Attention in every spelling is one operator with the module's results; what hides or shows weights is refused."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from projgen.errors import UnsupportedError
from projgen.importers.torch_export import import_module, import_program
from projgen.ir.attrs import Attention
from projgen.ir.graph import Graph
from projgen.passes import run_pipeline
from projgen.pca.attention import split_attention
from tests.importers.torch.checks import TOLERANCE, ops, relative_error
from tests.importers.torch.nets import Fn

WIDTH, HEADS, STEPS = 12, 3, 6


def attend(**options: object) -> nn.MultiheadAttention:
    made = nn.MultiheadAttention(WIDTH, HEADS, **{"batch_first": True, **options})  # type: ignore[arg-type]
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.4)
    return made


def by_hand(m: nn.Module, x: Tensor) -> Tensor:
    q, k, v = m.q(x), m.k(x), m.v(x)
    weights = F.softmax(q @ k.transpose(1, 2) / math.sqrt(WIDTH), -1)
    return m.fc(torch.bmm(weights, v)).relu()


def heads_by_hand(m: nn.Module, x: Tensor) -> Tensor:
    q, k, v = (part.unflatten(2, (HEADS, -1)).movedim(2, 1) for part in m.qkv(x).chunk(3, -1))
    weights = (0.3 * (q @ k.transpose(2, 3))).softmax(3)
    return m.fc((weights @ v).transpose(1, 2).flatten(2))


def merged_by_hand(m: nn.Module, x: Tensor) -> Tensor:
    """Batch and heads on one axis, as torch's own module has them; everything around keeps batch and time apart."""
    batch = x.shape[0]
    q, k, v = (f(x).reshape(batch, STEPS, HEADS, -1).transpose(1, 2).reshape(batch * HEADS, STEPS, -1)
               for f in (m.q, m.k, m.v))  # fmt: skip
    weights = torch.bmm(q, k.transpose(1, 2)).div(2.0).view(batch, HEADS, STEPS, STEPS).softmax(-1)
    y = torch.bmm(weights.view(batch * HEADS, STEPS, STEPS), v)
    y = y.view(batch, HEADS, STEPS, -1).transpose(1, 2).reshape(batch * STEPS, WIDTH)
    return m.fc(torch.relu(y + 0.1)).view(batch, STEPS, WIDTH)


def line(inputs: int = WIDTH, outputs: int = WIDTH) -> nn.Linear:
    return nn.Linear(inputs, outputs)


QKV = {"q": line, "k": line, "v": line, "fc": line}
NETS: dict[str, tuple[Callable[..., object], dict[str, Callable[[], nn.Module]], tuple[tuple[int, ...], ...]]] = {
    "self": (lambda m, x: x + m.attn(x, x, x, need_weights=False)[0], {"attn": attend}, ((STEPS, WIDTH),)),
    "weights": (lambda m, x: x + m.attn(x, x, x)[0], {"attn": lambda: attend(bias=False)}, ((STEPS, WIDTH),)),
    "time first": (
        lambda m, x: m.attn(*(x.transpose(0, 1),) * 3)[0].transpose(0, 1),
        {"attn": lambda: attend(batch_first=False)},
        ((STEPS, WIDTH),),
    ),
    "cross": (
        lambda m, x, y: m.attn(x, y, y)[0].mean(1),
        {"attn": lambda: attend(kdim=5, vdim=5)},
        ((STEPS, WIDTH), (9, 5)),
    ),
    "cross packed": (lambda m, x, y: m.attn(x, y, y)[0], {"attn": attend}, ((STEPS, WIDTH), (4, WIDTH))),
    "of itself": (lambda _, x: F.scaled_dot_product_attention(x, x, x, scale=0.2).relu(), {}, ((STEPS, WIDTH),)),
    "by hand": (by_hand, QKV, ((STEPS, WIDTH),)),
    "heads by hand": (heads_by_hand, {"qkv": lambda: line(outputs=3 * WIDTH), "fc": line}, ((STEPS, WIDTH),)),
    "merged by hand": (merged_by_hand, QKV, ((STEPS, WIDTH),)),
    "encoder": (
        lambda m, x: m.layer(x),
        {"layer": lambda: nn.TransformerEncoderLayer(WIDTH, HEADS, 20, activation="gelu", batch_first=True)},
        ((STEPS, WIDTH),),
    ),
    "zero mask": (
        lambda m, x: m.attn(x, x, x, attn_mask=torch.zeros(STEPS, STEPS))[0], {"attn": attend}, ((STEPS, WIDTH),)
    ),
}  # fmt: skip


class One(Fn):
    """Of one input; exporters look at the arguments."""

    def forward(self, x: Tensor) -> object:
        return self._forward(self, x)


class Two(Fn):
    def forward(self, x: Tensor, y: Tensor) -> object:
        return self._forward(self, x, y)


def build(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(len(name))
    forward, layers, shapes = NETS[name]
    return (One, Two)[len(shapes) - 1](forward, **{n: make() for n, make in layers.items()}).eval(), tuple(
        torch.randn(4, *s) for s in shapes
    )


def check(graph: Graph, module: nn.Module, inputs: tuple[Tensor, ...]) -> Graph:
    canonical = run_pipeline(graph)
    assert relative_error(graph, module, inputs) <= TOLERANCE
    assert relative_error(canonical, module, inputs) <= TOLERANCE
    assert ops(canonical).count("attention") == 1
    assert not {"mul", "softmax", "transpose", "slice", "select"} & set(ops(canonical))
    return canonical


@pytest.mark.parametrize("name", NETS)
def test_modules(name: str) -> None:
    module, inputs = build(name)
    check(import_module(module, inputs), module, inputs)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("is_open", [False, True], ids=["fixed batch", "open batch"])
@pytest.mark.parametrize("name", NETS)
def test_programs(name: str, is_open: bool) -> None:
    """A saved program has torch's own form of the module, which puts batch and heads on one axis."""
    module, inputs = build(name)
    more = tuple(torch.cat((x, x[:3])) for x in inputs)  # 7 samples: a size that nothing else has
    shapes = tuple({0: torch.export.Dim("batch")} for _ in inputs) if is_open else None
    program = torch.export.export(module, more, dynamic_shapes=shapes)
    check(import_program(program), module, inputs)


def test_a_module_taken_apart_gives_the_same_graph() -> None:
    module, inputs = build("self")
    whole, parts = (run_pipeline(import_module(m, inputs)) for m in (module, split_attention(module)))
    assert [(n.name, n.op, n.attrs, n.source) for n in whole.nodes] == [
        (n.name, n.op, n.attrs, n.source) for n in parts.nodes
    ]
    (node,) = (n for n in whole.nodes if isinstance(n.attrs, Attention))
    assert node.attrs == Attention((WIDTH // HEADS) ** -0.5)
    assert {n.source for n in whole.nodes if n.op == "linear"} == {"attn.in_proj", "attn.out_proj"}


REFUSED: dict[str, tuple[Callable[..., object], str]] = {
    "mask": (
        lambda m, x: m.attn(x, x, x, attn_mask=torch.ones(STEPS, STEPS).triu(1).bool(), need_weights=False)[0],
        "attention with a mask. Allowed: .*every step to every step.*module 'attn'",
    ),
    "added mask": (
        lambda m, x: m.attn(x, x, x, attn_mask=torch.ones(STEPS, STEPS).triu(1).bool())[0], "attention with a mask"
    ),
    "padding mask": (
        lambda m, x: m.attn(x, x, x, key_padding_mask=(torch.arange(STEPS) > 3).expand(len(x), STEPS))[0],
        "attention with a mask",
    ),
    "causal": (lambda _, x: F.scaled_dot_product_attention(x, x, x, is_causal=True), "attention with a causal mask"),
    "dropout": (lambda _, x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.1), "dropout that is active"),
    "groups": (
        lambda _, x: F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None], enable_gqa=True), "enable_gqa"
    ),
    "weights": (lambda m, x: m.attn(x, x, x)[1], r"the weights of attention are used .*need_weights"),
    "scores": (lambda _, x: (x @ x.mT).relu(), "the scores of attention are used"),
    "scores as weights": (lambda _, x: x @ x.mT @ x, "no softmax has made weights"),
    "other softmax": (lambda _, x: (x @ x.mT).softmax(1) @ x, "softmax that is not over the keys"),
    "left product": (lambda _, x: (x @ x.mT).softmax(-1).mT @ x, "the weights of attention are used"),
    "returned": (lambda _, x: (x @ x.mT).softmax(-1), "output 0 .*weights of attention"),
    "extra key": (
        lambda m, x: m.kv(x, x, x)[0], r"one of its inputs is a constant.*module 'kv'"
    ),
    "merged away": (lambda _, x: x.flatten(0, 1).mean(1), "the batch is merged with another axis"),
    "merged output": (lambda _, x: x.flatten(0, 1).relu(), "output 0 has the batch merged with another axis"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name(case: str) -> None:
    forward, message = REFUSED[case]
    module = Fn(forward, attn=attend(), kv=attend(add_bias_kv=True)).eval()
    with pytest.raises(UnsupportedError, match=f"(?s){message}"):
        import_module(module, (torch.randn(2, STEPS, WIDTH),))
