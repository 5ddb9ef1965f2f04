"""Building test images: many model folders and the driver in one executable."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal

import jinja2

from projgen import resources
from projgen.cmsis_nn import WHERE, CmsisNN, load
from projgen.errors import FitError, InputError, ToolMissingError
from projgen.harness.elf import architecture, object_sizes
from projgen.harness.manifest import ModelFolder, read_model
from projgen.harness.toolchain import HarnessError, find_tool, first_line, gcc, install_command, run_tool
from projgen.targets import Target

CALIBRATION_LOOPS: Final = 600_000
CALIBRATION_INSTRUCTIONS: Final = 2 * CALIBRATION_LOOPS + 1

WARNINGS: Final = ("-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror")
SECTIONS: Final = ("-ffunction-sections", "-fdata-sections")
SANITIZERS: Final = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g")

Compiler = Literal["gcc", "clang"]


@dataclass(frozen=True, slots=True)
class Image:
    """A built executable and how it was built.

    Attributes:
        elf: the executable.
        models: the models in it; a record names one by its place here.
        commands: every command that was run, in order.
        attributes: the ELF's machine and architecture attributes.
        compiler_version: first line of the model compiler's ``--version``.
    """

    elf: Path
    target: Target
    models: tuple[ModelFolder, ...]
    commands: tuple[tuple[str, ...], ...]
    attributes: Mapping[str, str]
    compiler_version: str
    optimise: str
    sanitized: bool


@dataclass(frozen=True, slots=True)
class Options:
    """How models are compiled; the driver is always built the same way."""

    optimise: str = "-O2"
    compiler: Compiler = "gcc"
    sanitize: bool = False
    lto: bool = False
    extra_flags: tuple[str, ...] = ()
    library: CmsisNN | None = None


def build_image(
    models: Sequence[Path | str],
    target: Target,
    out_dir: Path | str,
    *,
    optimise: str = "-O2",
    compiler: Compiler = "gcc",
    sanitize: bool = False,
    lto: bool = False,
    extra_flags: Sequence[str] = (),
    mode: Literal["run", "step"] = "run",
    cmsis_nn: Path | str | None = None,
) -> Image:
    """Compile model folders and the test driver, and link them into ``out_dir/image.elf``.

    Args:
        models: folders written by ``projgen compile``; all may share one image.
        optimise, compiler, lto, extra_flags: how the models' C is compiled.
        sanitize: with AddressSanitizer and UBSan (target host only).
        mode: ``step`` refuses models without ``reset`` and ``step``; both kinds of record run in any image.
        cmsis_nn: folder of CMSIS-NN for the models that call it; None: what the environment names.

    Raises:
        ToolMissingError: no compiler.
        FitError: a model is larger than the target's flash or RAM, or the image than the board.
        InputError: the options don't go together, or a folder is no model.
        HarnessError: emitted C does not compile without warnings.
    """
    read = tuple(read_model(folder) for folder in models)
    options = Options(optimise, compiler, sanitize, lto, tuple(extra_flags), find_library(read, cmsis_nn))
    _check_options(options, target)
    _check_models(read, mode)
    out_dir = Path(out_dir).resolve()
    out_dir.mkdir(parents=True, exist_ok=True)

    compiles = [compile_command(model, target, out_dir, options) for model in read]
    drivers = _driver_commands(read, target, out_dir, options)
    libraries = library_commands(read, target, out_dir, options)
    with ThreadPoolExecutor(max_workers=2) as pool:
        list(pool.map(run_tool, [*compiles, *drivers, *libraries]))
    objects = [out_dir / f"{model.name}.o" for model in read]
    if not lto and not sanitize:
        for model, built in zip(read, objects, strict=True):
            check_fit(model, built, target)
    parts = [Path(command[-1]) for command in (*drivers, *libraries)]
    elf = out_dir / "image.elf"
    link = link_command([*parts, *objects], elf, target, out_dir, options)
    run_link(link, target)
    return Image(
        elf=elf,
        target=target,
        models=read,
        commands=(*compiles, *drivers, *libraries, link),
        attributes=architecture(elf),
        compiler_version=first_line([compiles[0][0] if compiles else gcc(target), "--version"]),
        optimise=optimise,
        sanitized=sanitize,
    )


def find_library(models: Sequence[ModelFolder], cmsis_nn: Path | str | None) -> CmsisNN | None:
    """The CMSIS-NN that the models call; None where none does.

    Raises:
        InputError: it is not there, or not the release that a model was compiled for.
    """
    wanted = {model.cmsis_nn.version: model.name for model in models if model.cmsis_nn is not None}
    if not wanted:
        return None
    found = load(cmsis_nn)
    for version, name in wanted.items():
        if version != found.version:
            raise InputError(
                f"model {name} was compiled for CMSIS-NN {version}, and {found.root} holds {found.version}",
                f"CMSIS-NN {version}, or compile the model again",
                WHERE,
            )
    return found


def library_commands(
    models: Sequence[ModelFolder], target: Target, out_dir: Path, options: Options
) -> list[tuple[str, ...]]:
    """Commands that compile the sources of CMSIS-NN that the models call, each once; the object is the last word.

    The library is not ours: its warnings are not looked at. It reads words through memcpy, which only a hosted
    compiler turns into loads.
    """
    if options.library is None:
        return []
    used = [model.cmsis_nn for model in models if model.cmsis_nn is not None]
    defines = sorted({f"-D{name}" for use in used for name in use.defines})
    return [
        (
            *_model_compiler(target, options),
            *target.flags,
            "-std=gnu99",
            "-w",
            *SECTIONS,
            options.optimise,
            *(SANITIZERS if options.sanitize else ()),
            *defines,
            *_library_flags(target, options),
            "-c",
            str(options.library.root / source),
            "-o",
            str(out_dir / f"cmsis_nn_{Path(source).stem}.o"),
        )
        for source in sorted({source for use in used for source in use.sources})
    ]


def _library_flags(target: Target, options: Options) -> tuple[str, ...]:
    """What finds CMSIS-NN's headers. Off Arm they are told to do without its intrinsics, and some forget to include."""
    if options.library is None:
        return ()
    plain = ("-D__GNUC_PYTHON__", "-D__RESTRICT=__restrict", "-include", "stdint.h") if target.cpu == "host" else ()
    return (*plain, *(word for folder in options.library.includes for word in ("-isystem", str(folder))))


def _model_compiler(target: Target, options: Options) -> tuple[str, ...]:
    if options.compiler == "clang":
        return (*_clang(target), "-Wno-unused-command-line-argument")
    # Layers that happen to be equal must stay apart, or their counts would be added up.
    return (gcc(target), "-fno-ipa-icf")


def compile_command(model: ModelFolder, target: Target, out_dir: Path, options: Options) -> tuple[str, ...]:
    """The command that compiles one model's C; the object is its last word."""
    return (
        *_model_compiler(target, options),
        *(_library_flags(target, options) if model.cmsis_nn is not None else ()),
        *target.flags,
        "-std=c99",
        "-ffreestanding",
        *WARNINGS,
        *SECTIONS,
        options.optimise,
        *(("-flto",) if options.lto else ()),
        *(SANITIZERS if options.sanitize else ()),
        *options.extra_flags,
        "-c",
        str(model.source),
        "-o",
        str(out_dir / f"{model.name}.o"),
    )


def harness_command(
    source: Path, target: Target, out_dir: Path, options: Options, flags: Sequence[str] = ()
) -> tuple[str, ...]:
    """The command that compiles one file of the harness; the object is its last word."""
    sanitize = (*SANITIZERS, "-DPGH_SANITIZE") if options.sanitize else ()
    front = _clang(target) if options.compiler == "clang" and options.sanitize else (gcc(target),)
    return (
        *front,
        *target.flags,
        "-std=gnu11",
        *(("-ffreestanding",) if target.board.kind == "system" else ()),
        *WARNINGS,
        *SECTIONS,
        "-O2",
        # The painted stack starts at the adapter's own frame; and memcpy must not become a call of itself.
        "-fno-optimize-sibling-calls",
        "-fno-builtin",
        *sanitize,
        f"-DPGH_CALIBRATION_LOOPS={CALIBRATION_LOOPS}u",
        f"-I{resources.runtime_c() / 'boards' / 'common'}",
        *flags,
        "-c",
        str(source),
        "-o",
        str(out_dir / f"harness_{source.name.replace('.', '_')}.o"),
    )


def board_sources(target: Target) -> list[Path]:
    """Start-up and input/output files of the target's board."""
    board = resources.runtime_c() / "boards" / target.board.startup
    return sorted(path for path in board.iterdir() if path.suffix in (".c", ".S"))


def link_command(
    objects: Sequence[Path], elf: Path, target: Target, out_dir: Path, options: Options, flags: Sequence[str] = ()
) -> tuple[str, ...]:
    """The command that links an image, with the board's linker script written beside it."""
    front = _clang(target) if options.compiler == "clang" and options.sanitize else (gcc(target),)
    if target.board.kind == "system":
        script = out_dir / "link.ld"
        script.write_text(_render("link.ld.j2", target=target), encoding="utf-8")
        ways: tuple[str, ...] = ("-nostdlib", "-T", str(script))
    elif options.sanitize:
        ways = SANITIZERS
    else:
        ways = ("-static", "-no-pie")
    libraries = ("-lgcc",) if target.board.kind == "system" else ()
    lto = ("-flto", options.optimise) if options.lto else ()
    names = map(str, objects)
    gc = "-Wl,--gc-sections"
    return (*front, *target.flags, *ways, *lto, gc, *flags, *names, *libraries, "-o", str(elf))


def run_link(command: Sequence[str], target: Target) -> None:
    """Link.

    Raises:
        FitError: the image is larger than the board's memory.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False, errors="replace")
    overflow = re.findall(r"region `(\w+)' overflowed by (\d+) bytes", done.stderr)
    if overflow:
        board = target.board
        sizes = {"FLASH": board.flash, "RODATA": board.rodata, "RAM": board.ram}
        parts = [
            f"{name} of {region.size} bytes by {over}" for name, over in overflow if (region := sizes[name]) is not None
        ]
        raise FitError(
            f"the image overflows {', '.join(parts)} bytes on board {board.machine or target.name}",
            "a smaller model, fewer models in one image, or a board with more memory",
            f"the model, or [board] of target {target.name}",
        )
    if "libclang_rt" in done.stderr:
        raise ToolMissingError(
            "clang's sanitizer libraries are missing",
            f"for example after: {install_command(['clang'])}",
            "the installed packages, or choose gcc",
        )
    if done.returncode != 0:
        lines = "\n".join(done.stderr.splitlines()[:40])
        raise HarnessError(f"the linker failed: {' '.join(command)}\n{lines}")


def check_fit(model: ModelFolder, built: Path, target: Target) -> None:
    """Compare a compiled model with what its target has.

    Raises:
        FitError: with both sizes.
    """
    helpers = (f"{model.name}_quantize_input", f"{model.name}_dequantize_output")
    sizes = object_sizes(built, without=helpers)
    refuse_larger(model, target, flash=sizes.flash, static_ram=sizes.data + sizes.bss)


def refuse_larger(model: ModelFolder, target: Target, *, flash: int, static_ram: int) -> None:
    """Refuse a model that needs more flash, or more RAM for arena and state, than its target has.

    Raises:
        FitError: with both sizes.
    """
    ram = static_ram + model.arena_bytes + model.state_bytes
    for kind, needed, has in (("flash", flash, target.flash_bytes), ("RAM", ram, target.ram_bytes)):
        if needed > has:
            raise FitError(
                f"model {model.name} needs {needed} bytes of {kind}, target {target.name} has {has}",
                f"at most {has} bytes of {kind}",
                f"the model (compress it further), or {kind.lower()} of target {target.name}",
            )


def _check_options(options: Options, target: Target) -> None:
    if options.compiler not in ("gcc", "clang"):
        raise InputError(f"compiler {options.compiler!r}", "gcc, clang", "compiler")
    if options.sanitize and target.board.kind != "native":
        raise InputError(f"sanitize on target {target.name}", "target host", "sanitize")
    if options.lto and (options.compiler == "clang" or options.sanitize):
        raise InputError("lto with clang or sanitizers", "lto with gcc alone", "lto")
    if options.compiler == "clang" and target.clang_target is None:
        raise InputError(f"clang for target {target.name}", "gcc, or a clang_target", "the target's file")


def _check_models(models: Sequence[ModelFolder], mode: str) -> None:
    names = [model.name for model in models]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"two models are named {twice[0]}", "different names in one image", "models")
    if mode not in ("run", "step"):
        raise InputError(f"mode {mode!r}", "run, step", "mode")
    for model in models:
        if mode == "step" and not model.step:
            raise InputError(f"model {model.name} has no step", "a model with reset and step", "mode")


def _driver_commands(
    models: Sequence[ModelFolder], target: Target, out_dir: Path, options: Options
) -> list[tuple[str, ...]]:
    driver = out_dir / "driver.c"
    driver.write_text(_render("driver.c.j2", models=[_model_view(model) for model in models]), encoding="utf-8")
    common = resources.runtime_c() / "boards" / "common"
    includes = [f"-I{model.folder}" for model in models]
    commands = [harness_command(driver, target, out_dir, options, includes)]
    for source in (common / "harness.c", common / "machine.S", *board_sources(target)):
        commands.append(harness_command(source, target, out_dir, options))
    return commands


def _model_view(model: ModelFolder) -> dict[str, object]:
    """What the driver's template sees of a model; sizes in bytes."""
    return {
        "name": model.name,
        "macro": model.name.upper(),
        "sequence": model.sequence,
        "per_step_output": model.per_step_output,
        "has_step": model.step,
        "input_in_arena": model.input_in_arena,
        "inputs": model.inputs,
        "outputs": model.outputs,
    }


def _render(template: str, **values: object) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(resources.templates() / "harness"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(**values)


def _clang(target: Target) -> tuple[str, ...]:
    clang = find_tool("clang", f"to build for target {target.name} with clang")
    if not target.clang_target:
        return (clang,)
    front = (clang, f"--target={target.clang_target}")
    if target.board.kind != "system":
        return front
    return (*front, "-isystem", _c_headers(gcc(target)))


@cache
def _c_headers(compiler: str) -> str:
    """Folder with the cross compiler's string.h: clang brings only the freestanding headers."""
    done = subprocess.run(
        [compiler, "-M", "-include", "string.h", "-x", "c", "/dev/null"],
        capture_output=True,
        text=True,
        check=False,
    )
    for path in done.stdout.replace("\\\n", " ").split():
        if path.endswith("/string.h"):
            return str(Path(path).parent)
    name = Path(compiler).name
    raise ToolMissingError(
        f"{name} has no C headers (string.h)",
        f"its header package, for example after: {install_command([name])}",
        "the installed packages, or choose gcc",
    )
