"""Saved models and their integers, kept in tests/quant/golden: the meaning of a saved model never changes."""

from __future__ import annotations

import numpy as np
import pytest

from projgen.ir.interpreter import trace_integer
from projgen.quant.model import QuantizedModel
from projgen.quant.store import to_bytes
from tests.ops.loops import _RULES, meaning
from tests.quant.make_golden import FOLDER, MODELS, inputs

DIGESTS = {
    "maps": "33eefd219f09fcd6dae12366e1370281ffcb63efe904756b549985e4b125b63f",
    "sequences": "dba974bc0207dc79544fe7d3ecc5621ee1ff28097b12d703772e847a68199eed",
}


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model_gives_its_integers(name: str) -> None:
    model = QuantizedModel.load(FOLDER / f"{name}.qmodel")
    with np.load(FOLDER / f"{name}.npz") as kept:
        np.testing.assert_array_equal(model.quantize_input(inputs(MODELS[name][1])), kept["x"])
        for i, y in enumerate(model.run_int(kept["x"])):
            np.testing.assert_array_equal(y, kept[f"y{i}"])
            assert len(np.unique(y)) > 10


@pytest.mark.parametrize("name", MODELS)
def test_its_file_and_its_hash_are_reproduced(name: str) -> None:
    model = QuantizedModel.load(FOLDER / f"{name}.qmodel")
    assert to_bytes(model.graph) == (FOLDER / f"{name}.qmodel").read_bytes()
    assert model.digest() == DIGESTS[name]


@pytest.mark.parametrize("name", MODELS)
def test_every_node_equals_the_plain_loops(name: str) -> None:
    """Node by node inside a whole model, on the integers that really arrive there."""
    model = QuantizedModel.load(FOLDER / f"{name}.qmodel")
    with np.load(FOLDER / f"{name}.npz") as kept:
        compared = set()
        for node, args, y in trace_integer(model.graph, (kept["x"][:4],)):
            if node.op in _RULES:
                np.testing.assert_array_equal(y, meaning(model.graph, node, args), err_msg=node.name)
                compared.add(node.op)
    assert len(compared) >= (13 if name == "maps" else 3)


def test_the_golden_models_hold_every_kind_of_value() -> None:
    graph = QuantizedModel.load(FOLDER / "maps.qmodel").graph
    assert {v.type.dtype.value for v in graph.values.values()} == {"int8", "int16", "int32"}
    assert {"linear", "conv2d", "lut", "add", "mul", "pad", "softmax", "concat"} <= {n.op for n in graph.nodes}
