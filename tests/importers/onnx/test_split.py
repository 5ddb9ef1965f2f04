"""The operator Split: pieces stated or even, against onnxruntime, and what it refuses."""

from __future__ import annotations

import onnx
import pytest
from onnx import helper

from projgen.errors import InputError, UnsupportedError
from projgen.importers.onnx import load_onnx
from tests.importers.onnx.building import ints, model, sample
from tests.importers.onnx.exporting import relative_error, run_onnx, run_torch


@pytest.mark.parametrize("pieces", [(2, 3, 1), None], ids=["stated", "even"])
def test_split(pieces: tuple[int, ...] | None) -> None:
    split = helper.make_node("Split", ["x", *(["p"] if pieces else [])], ["a", "b", "c"], name="s", axis=2)
    proto = model(
        [split, helper.make_node("Concat", ["c", "a", "b"], ["y"], name="j", axis=2)],
        [("batch", 4, 6)],
        {"p": ints(*pieces)} if pieces else {},
    )
    x = sample((4, 6), 5)
    assert relative_error(run_torch(load_onnx(proto), [x]), run_onnx(proto, [x])) <= 1e-6


def test_split_refuses_the_batch_and_counts_its_pieces() -> None:
    def split(pieces: tuple[int, ...], axis: int) -> onnx.ModelProto:
        nodes = [
            helper.make_node("Split", ["x", "p"], ["a", "b"], name="s", axis=axis),
            helper.make_node("Concat", ["a", "b"], ["y"], name="j", axis=1),
        ]
        return model(nodes, [("batch", 6)], {"p": ints(*pieces)})

    with pytest.raises(UnsupportedError, match=r"Split .*along an axis whose length is open"):
        load_onnx(split((1, 1), 0))
    with pytest.raises(UnsupportedError, match=r"Split .*one is empty"):
        load_onnx(split((6, 0), 1))
    with pytest.raises(InputError, match=r"Split .*pieces of \[3, 4\] of an axis of 6"):
        load_onnx(split((3, 4), 1))
