"""The passes over the float graph, in order, and the runner that verifies the graph between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType

from projgen.ir.graph import Graph, Node
from projgen.ir.verify import VerifyError, neighbourhood, verify
from projgen.passes import (
    absorb_layout,
    absorb_ports,
    fold_affine,
    fold_pad,
    fuse_activation,
    merge_duplicates,
    remove_dead,
    restore_time,
    simplify_views,
    split_linear,
)
from projgen.passes.record import Condition, Pass, Step

__all__ = ["PIPELINE", "Condition", "Pass", "Step", "run_pipeline"]

PIPELINE: tuple[Step, ...] = (
    Step(remove_dead.PASS, "first: the rules of all others look at who reads a value, and dead readers mislead them"),
    Step(
        merge_duplicates.PASS, "a layer read through y[-1] and through h_n is read once; copies would hide sole readers"
    ),
    Step(absorb_ports.PASS, "before Transposes sink: those at the inputs cost nothing there"),
    Step(simplify_views.PASS, "brings layers, constants and activations side by side for the folds below"),
    Step(restore_time.PASS, "before any fold that would form a static map out of a sequence"),
    Step(fold_pad.PASS, "before the affine folds: a shift may only pass into a layer that does not pad"),
    Step(fold_affine.PASS, "before activations are fused: nothing folds into a layer behind its activation"),
    Step(fold_pad.PASS, "again: a scale and shift that parted padding from its convolution is gone"),
    Step(split_linear.PASS, "after the folds, which want one reader; before the Reshapes that it leaves are merged"),
    Step(simplify_views.PASS, "scale and shift on vectors and sequences became maps between Reshapes"),
    Step(fuse_activation.PASS, "now that each layer is final and stands next to its activation"),
    Step(absorb_layout.PASS, "after the sinking: flattened maps meet the layers that read them"),
    Step(simplify_views.PASS, "merges the Reshapes that the weights' permutation left"),
    Step(absorb_ports.PASS, "Transposes that sank down to an output"),
    Step(remove_dead.PASS, "last: nothing unread is quantised"),
)


def run_pipeline(
    graph: Graph,
    passes: Sequence[Step] = PIPELINE,
    on_stage: Callable[[str, Graph], None] | None = None,
) -> Graph:
    """Run the passes in order, verifying the graph before the first and after each one.

    Args:
        graph: a float-stage graph; it is not modified.
        passes: steps to run.
        on_stage: called with a pass's name and its result ("import" and the given graph first).
    Raises:
        VerifyError: a graph is illegal, or a pass's condition does not hold; it names the pass.
    """
    verify(graph, after="import")
    if on_stage is not None:
        on_stage("import", graph)
    for step in passes:
        action = step.action
        _hold(graph, action.requires, f"{action.name} requires")
        with _Named(action.name):
            graph = action.run(graph)
        verify(graph, after=action.name)
        _hold(graph, action.ensures, f"{action.name} ensures")
        if on_stage is not None:
            on_stage(action.name, graph)
    return graph


def _hold(graph: Graph, conditions: Sequence[Condition], role: str) -> None:
    for condition in conditions:
        node: Node | None = condition.offender(graph)
        if node is not None:
            rule = f"pass {role} that {condition.name}"
            raise VerifyError(rule, node=node.name, neighbourhood=neighbourhood(graph, node))


class _Named:
    """Adds the running pass to whatever error leaves it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is not None:
            error.add_note(f"in pass {self._name!r}")
