"""Parameter structs are initialised by the names of their members."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from projgen import resources
from projgen.codegen.structs import Declaration, member_lines, read_structs
from tests.codegen.native import emit
from tests.schedule.nets import depthwise_pointwise

TEXT = """
typedef struct {
    int32_t in_h, in_w; /* int32_t never; */
    uint32_t pad;
} pg_window;

typedef struct {
    pg_window window, other;
    const int8_t *weights;
    int32_t shape[4];
    int32_t count;
} pg_params;
"""


def test_members_in_the_order_of_the_text() -> None:
    structs = read_structs([TEXT])
    assert structs["pg_window"] == (Declaration("int32_t", ("in_h", "in_w")), Declaration("uint32_t", ("pad",)))
    assert member_lines(structs, "pg_params", "other", 3) == (("in_h", "in_w"), ("pad",))


@pytest.mark.parametrize("field", ["weights", "shape", "count", "missing"])
def test_other_fields_have_no_members(field: str) -> None:
    assert member_lines(read_structs([TEXT]), "pg_params", field, 4) == ()
    assert member_lines({}, "cmsis_nn_params", field, 4) == ()


def test_another_number_of_members_is_refused() -> None:
    with pytest.raises(ValueError, match=r"pg_params\.window is given 4 numbers; pg_window has 3"):
        member_lines(read_structs([TEXT]), "pg_params", "window", 4)


def test_every_struct_of_the_runtime_is_read() -> None:
    texts = [path.read_text() for path in sorted((resources.runtime_c()).glob("*/pg_*.h"))]
    names = {name for text in texts for name in re.findall(r"^\} (\w+);", text, re.MULTILINE)}
    assert len(names) > 40
    assert set(read_structs(texts)) == names


def test_emitted(tmp_path: Path) -> None:
    emit(depthwise_pointwise(9, 7, 8, 8), tmp_path, target="cortex-m0", kernels="portable")
    text = (tmp_path / "net.c").read_text()
    assert "    .window = {\n        .in_h = 9, .in_w = 7, .in_c = 8,\n" in text
    assert re.search(r"\.out = \{\n        \.shift = \d+,\n        \.zero_point = -?\d+,\n", text)
