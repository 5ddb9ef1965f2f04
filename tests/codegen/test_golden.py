"""Generated files, line by line, from committed quantised models.

``pytest tests/codegen/test_golden.py --update-golden`` rewrites them; the diff is then to be read. NAME_kernels.h holds
the kernels' own sources, which have tests of their own, so it is not among the golden files.
"""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path

import pytest

from projgen.codegen.build import RUNTIME_HEADER
from projgen.driver import generate
from projgen.options import CompileOptions
from projgen.quant.model import QuantizedModel
from projgen.resources import runtime_c
from projgen.targets import load_target

GOLDEN = Path(__file__).parents[1] / "golden"
MODELS = {  # name: what is favoured; "ram" shows a streamed segment
    "conv": "ram",
    "lstm": "speed",
    "attention": "speed",  # behind a layer norm, its queries, keys and values parts of one layer
}


def generated(name: str) -> dict[str, str]:
    """The text files of one model; predictions, which follow the kernels' cost models, left out."""
    q = QuantizedModel.load(GOLDEN / f"{name}.qmodel")
    options = CompileOptions.checked(name, "c", "portable", MODELS[name])
    files = dict(generate(q, load_target("host"), options).files)
    texts = {n: data.decode() for n, data in files.items() if not n.endswith((".qmodel", "_kernels.h"))}
    manifest = json.loads(texts[f"{name}.json"])
    del manifest["predicted_instructions"]
    for layer in manifest["layers"]:
        del layer["predicted_instructions"]
    texts[f"{name}.json"] = json.dumps(manifest, indent=1) + "\n"
    return texts


@pytest.mark.parametrize("name", MODELS)
def test_golden(name: str, update_golden: bool) -> None:
    folder = GOLDEN / name
    texts = generated(name)
    if update_golden:
        folder.mkdir(exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        for file, text in texts.items():
            (folder / file).write_text(text)
    assert {p.name for p in folder.iterdir()} == set(texts)
    for file, text in texts.items():
        wanted = (folder / file).read_text()
        diff = difflib.unified_diff(wanted.splitlines(), text.splitlines(), "golden", "generated", lineterm="", n=1)
        assert text == wanted, f"{file}:\n" + "\n".join(list(diff)[:40])


def test_the_quantised_model_travels_unchanged() -> None:
    q = QuantizedModel.load(GOLDEN / "conv.qmodel")
    plan = generate(q, load_target("host"), CompileOptions("conv"))
    assert plan["conv.qmodel"] == (GOLDEN / "conv.qmodel").read_bytes()


def test_kernels_are_what_is_reached_of_the_runtime_sources_word_for_word() -> None:
    text = generate(QuantizedModel.load(GOLDEN / "lstm.qmodel"), load_target("host"), CompileOptions("lstm"))[
        "lstm_kernels.h"
    ].decode()
    header = (runtime_c() / "include" / RUNTIME_HEADER).read_text()
    functions = re.findall(r"(?:^/\*(?:(?!\*/).)*\*/\n)^PG_\w+ [^\n]*\{$.*?^\}$", header, re.DOTALL | re.MULTILINE)
    kept = [function for function in functions if function in text]
    assert len(functions) > len(kept) > 4
    assert "pg_requantise(int32_t acc" in "".join(kept) and "pg_fill_sides" not in text
    assert '#include "' not in text
    order = [text.index(f"---- {n} ----") for n in (RUNTIME_HEADER, "pg_recurrent.h", "pg_lstm.h")]
    assert order == sorted(order)
    assert text.count("---- pg_matrix.h ----") == 1
