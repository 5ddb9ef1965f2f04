"""Forms of C kernels whose output pixels lie apart, as parts of a concat do: an emitted call of the inlined one."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from projgen.ir.types import DType, TensorType
from projgen.kernels.record import Block, KernelChoice

_CTYPES = {DType.INT8: "int8_t", DType.INT16: "int16_t"}


def every(
    choice: KernelChoice, kernel: str, x: TensorType, y: TensorType, *, typed: bool, rows: str = ""
) -> KernelChoice:
    """A kernel that can write its output pixels apart.

    Args:
        kernel: the inlined function, whose last argument is the elements from one output pixel to the next.
        typed: whether it takes the types of both maps, or one.
        rows: what its function for one row takes of the map; "" where there is none.
    """

    @cache
    def pitched(pitch: int) -> KernelChoice | None:
        function = f"{choice.function}_every{pitch}"
        parameters: dict[str, int | str | tuple[int, ...]] = {
            "function": function,
            "kernel": kernel,
            "struct": choice.struct,
            "x": _CTYPES[x.dtype],
            "y": _CTYPES[y.dtype],
            "typed": int(typed),
            "rows": rows,
            "scratch": int(choice.scratch_bytes > 0),
            "step": pitch // y.dtype.bytes,
        }
        return replace(
            choice,
            function=function,
            row_function=f"{function}_row" if rows else "",
            blocks=(*choice.blocks, Block("pitched_call.h.j2", function, tuple(parameters.items()))),
            pitch=pitch,
            in_place=frozenset(),
        )

    return replace(choice, pitched=pitched)
