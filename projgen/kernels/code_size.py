"""Predicted size of the code behind a kernel, by unit: what several layers share exists once in an image.

A unit is a C function or a group of them. Emitted assembly is counted line by line in the rendered block; C functions
have the size that gcc 12.2 gave them at -O2 for Cortex-M4 (those for MVE: Cortex-M55).
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final

from projgen.kernels.record import Block, KernelChoice
from projgen.kernels.render import render_block

# Of assembly, by core: most instructions of MVE take four bytes, those of Armv6-M two.
_BYTES_A_LINE: Final = {"mve": 3.62, "thumb1": 2.05}
# Elsewhere: what has an encoding of two bytes.
_SHORT: Final = re.compile(
    r"(?:\d:)? *(?:mov r\w+, r\w+|movs r[0-7], .*|cmp r\w+, r\w+|cmp r[0-7], #.*"
    r"|(?:adds|subs|lsls|lsrs|asrs) r[0-7], .*|bx .*|b(?:eq|ne|lt|ge|cc) .*|cbn?z .*"
    r"|add r(?P<to>\d+), r(?P=to), r\d+|(?:ldr|str) r[0-7], \[sp.*"
    r"|(?:ldr|str)[bh]? r[0-7], \[r[0-7](?:, #\d+)?\])"
)
_TYPES: Final = re.compile(r"_s(8|16)_s(8|16)$")
_LINE: Final = re.compile(r'"([^"]*)\\n')

# C beside the assembly of a block, by template.
_IN_BLOCK: Final = {
    "affine_dsp_call.h.j2": 16,
    "avg_pool_dsp.h.j2": 266,
    "avg_pool_mve_call.h.j2": 266,
    "binary_dsp.h.j2": 168,
    "binary_mve_call.h.j2": 16,
    "conv_call.h.j2": 28,
    "conv_im2col.h.j2": 170,
    "conv_mve_call.h.j2": 28,
    "linear_dsp.h.j2": 62,
    "linear_mve.h.j2": 70,
    "linear_thumb2.h.j2": 124,
    "depthwise_thumb2_call.h.j2": 124,
    "recurrent_thumb2.h.j2": 900,
    "max_pool_dsp.h.j2": 340,
    "pitched_call.h.j2": 960,
}
# What the kernels of one source file share.
_IN_SOURCE: Final = {
    "pg_affine_dsp_channels.h": 244 + 26,  # and what a call does for it
    "pg_conv2d_dsp.h": 432,
    "pg_depthwise_dsp.h": 404,
    "pg_linear_dsp.h": 124,
    "pg_recurrent_dsp.h": 1024 + 300,  # a table of tanh, and the steps around the block
    "pg_recurrent_mve.h": 1024 + 500,
    "pg_winograd.h": 294,
    "pg_conv2d_mve.h": 434,
    "pg_depthwise_mve.h": 628,
    "pg_pointwise_mve.h": 60,
    "pg_linear_thumb2.h": 60,
    "pg_pointwise_thumb2.h": 340,
    "pg_conv2d_thumb2.h": 340,
    "pg_recurrent_thumb2.h": 514,  # a table of tanh
    "pg_pointwise_thumb1.h": 38,
    "pg_conv2d_thumb1.h": 38,
    "pg_depthwise_thumb1.h": 102,
}
# Functions that a call block hands its blocks to.
_DRIVERS: Final = {
    "pg_winograd2d_map": 460,
    "pg_winograd_rows_map": 270,
    "pg_conv2d_direct_dsp": 110,
    "pg_depthwise_dsp_map": 264,
    "pg_conv2d_mve": 138,
    "pg_conv2d_mve_gathered": 380,
    "pg_depthwise_mve": 448,
    "pg_pointwise_mve": 25,
    "pg_conv2d_thumb1_s8": 528,
    "pg_conv2d_thumb1_residual": 560,
    "pg_depthwise_thumb1_map": 154,
}
_DRIVER_OTHER: Final = 230
# What the forms of a driver for whole maps and for rows have in common.
_BOTH_FORMS: Final = {
    "pg_winograd2d_map": 812,
    "pg_winograd_rows_map": 136,
    "pg_conv2d_direct_dsp": 242,
    "pg_pointwise_mve": 250,
    "pg_conv2d_mve": 172,
}
_BOTH_FORMS_OF_BLOCK: Final = {"conv_im2col.h.j2": 500}
# A portable kernel, instantiated for its types, by the last of its source files.
_PORTABLE: Final = {
    "pg_lut.h": 28,
    "pg_lut_thumb2.h": 76,
    "pg_linear.h": 576,
    "pg_conv2d.h": 960,
    "pg_pointwise.h": 624,
    "pg_depthwise.h": 1246,
    "pg_conv2d_residual.h": 1046,
    "pg_avg_pool2d.h": 582,
    "pg_max_pool2d.h": 420,
    "pg_attention.h": 1350 + 128,  # two tables of powers of two
    "pg_layer_norm.h": 458,
}
_PORTABLE_OTHER: Final = 200
# Portable recurrent kernels, by function, with the reset; beside them the table of tanh that all share.
_RECURRENT: Final = {
    "pg_lstm": 1156,
    "pg_lstm_projected": 1888,
    "pg_lstm_joint": 1452,
    "pg_gru": 880,
    "pg_gru_projected": 1520,
}
_TANH_POINTS: Final = 514
# Templates of C that is there for whole maps and again for rows.
_PER_FORM: Final = frozenset({"conv_call.h.j2", "conv_im2col.h.j2", "conv_mve_call.h.j2"})


@cache
def _block_bytes(block: Block) -> float:
    lines = (line.strip() for line in _LINE.findall(render_block(block)))
    code = [line for line in lines if line and not line.endswith(":") and not line.startswith(".")]
    core = next((name for name in _BYTES_A_LINE if name in block.template), "")
    if core:
        size = _BYTES_A_LINE[core] * len(code)
    else:
        size = sum(2.0 if _SHORT.fullmatch(line) else 6.0 if ";" in line else 4.0 for line in code)
    return size + _IN_BLOCK.get(block.template, 0 if code else 150)


def code_units(choice: KernelChoice, *, by_rows: bool = False) -> dict[str, float]:
    """Bytes of each unit of code that a choice needs, by the unit's name.

    ``by_rows``: as a stage of a streamed segment; a driver exists once for whole maps and once for rows.
    """
    form = " by rows" if by_rows else ""
    units: dict[str, float] = {}
    for block in choice.blocks:
        units[block.function + (form if block.template in _PER_FORM else "")] = _block_bytes(block)
        if block.template in _BOTH_FORMS_OF_BLOCK:
            units[f"{block.function} of both forms"] = _BOTH_FORMS_OF_BLOCK[block.template]
        driver = dict(block.parameters).get("driver")
        if isinstance(driver, str):
            name = _TYPES.sub("", driver)
            units.setdefault(driver + form, _DRIVERS.get(name, _DRIVER_OTHER))
            if name in _BOTH_FORMS:
                units[f"{driver} of both forms"] = _BOTH_FORMS[name]
    units |= {source: float(_IN_SOURCE[source]) for source in choice.sources if source in _IN_SOURCE}
    if not choice.blocks:
        size = _PORTABLE.get(choice.sources[-1], _PORTABLE_OTHER) if choice.sources else 0
        units[choice.row_function if by_rows else choice.function] = float(_RECURRENT.get(choice.function, size))
        if choice.function in _RECURRENT:
            units["pg_tanh_points"] = float(_TANH_POINTS)
    return units
