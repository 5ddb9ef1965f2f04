"""Flash and RAM of a model alone: images linked with it and without it, and the difference."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from projgen import resources
from projgen.harness.build import (
    Options,
    board_sources,
    compile_command,
    harness_command,
    library_commands,
    link_command,
    refuse_larger,
    run_link,
)
from projgen.harness.elf import Sizes, section_sizes
from projgen.harness.manifest import ModelFolder
from projgen.harness.toolchain import run_tool
from projgen.targets import Target


@dataclass(frozen=True, slots=True)
class Footprint:
    """Sizes of two images that differ by one model (its run, reset and step; not the float helpers)."""

    with_model: Sizes
    without_model: Sizes

    @property
    def flash(self) -> int:
        """Bytes of .text, .rodata and .data that the model adds."""
        return self.with_model.flash - self.without_model.flash

    @property
    def static_ram(self) -> int:
        """Bytes of .data and .bss that the model adds; 0 for emitted code."""
        a, b = self.with_model, self.without_model
        return a.data + a.bss - b.data - b.bss


def measure_footprint(model: ModelFolder, target: Target, out_dir: Path, options: Options) -> Footprint:
    """Link both images in ``out_dir`` and compare them.

    Raises:
        FitError: the model's flash, or arena and state, is more than the target has.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    empty = resources.runtime_c() / "boards" / "common" / "empty.c"
    commands = [harness_command(path, target, out_dir, options) for path in (empty, *board_sources(target))]
    compiled = compile_command(model, target, out_dir, options)
    libraries = library_commands([model], target, out_dir, options)
    for command in (*commands, compiled, *libraries):
        run_tool(command)
    parts = [Path(command[-1]) for command in commands]
    wanted = [f"-Wl,-u,{name}" for name in model.run_functions]
    # Debian's AArch64 linker adds a whole page of stubs against an erratum, in one image or the other.
    common = ["-mno-fix-cortex-a53-843419"] if target.compiler.startswith("aarch64") else []
    sizes = []
    whole = [*parts, *(Path(command[-1]) for command in (compiled, *libraries))]
    for name, objects, flags in (("without", parts, []), ("with", whole, wanted)):
        elf = out_dir / f"size_{name}.elf"
        run_link(link_command(objects, elf, target, out_dir, options, [*common, *flags]), target)
        sizes.append(section_sizes(elf))
    footprint = Footprint(with_model=sizes[1], without_model=sizes[0])
    refuse_larger(model, target, flash=footprint.flash, static_ram=footprint.static_ram)
    return footprint
