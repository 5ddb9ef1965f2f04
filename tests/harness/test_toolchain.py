"""Missing tools are named with the command that installs them; options that do not go together are refused."""

from __future__ import annotations

import pytest

from projgen.errors import InputError, ToolMissingError
from projgen.harness import doctor
from projgen.harness.build import build_image
from projgen.harness.records import Record
from projgen.harness.run import run_image
from projgen.harness.toolchain import HarnessError, install_command
from projgen.targets import load_target

from .conftest import Mutate


@pytest.mark.parametrize(
    ("target", "compiler", "package"),
    [
        ("host", "gcc", "gcc libc6-dev"),
        ("host", "clang", "clang"),
        ("cortex-m4", "arm-none-eabi-gcc", "gcc-arm-none-eabi libnewlib-arm-none-eabi"),
        ("cortex-a7", "arm-linux-gnueabihf-gcc", "gcc-arm-linux-gnueabihf"),
        ("cortex-a53", "aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
    ],
)
def test_a_missing_compiler(target, compiler, package, pair, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissingError) as caught:
        which = "clang" if compiler == "clang" else "gcc"
        build_image([pair], load_target(target), tmp_path / "b", compiler=which)
    assert caught.value.exit_code == 4
    assert f"{compiler} is missing: it is needed to build for target {target}" in str(caught.value)
    assert f"sudo apt-get install -y {package}" in str(caught.value)


@pytest.mark.qemu
def test_a_missing_emulator(pair, tmp_path, monkeypatch) -> None:
    image = build_image([pair], load_target("cortex-m4"), tmp_path / "b")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissingError, match=r"qemu-system-arm is missing.*apt-get install -y qemu-system-arm"):
        run_image(image, [Record(())])


def test_doctor_with_nothing_installed(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    statuses = doctor.check()
    assert not any(status.found for status in statuses)
    by_tool = {status.tool: status for status in statuses}
    assert by_tool["arm-none-eabi-gcc"].targets == tuple(f"cortex-m{n}" for n in (0, 3, 4, 7, 33, 55))
    assert by_tool["qemu-aarch64"].targets == ("cortex-a53", "cortex-a76")
    command = doctor.install_missing(statuses)
    assert command is not None
    for package in ("clang", "gcc-arm-none-eabi", "qemu-system-arm", "qemu-user", "gcc-aarch64-linux-gnu"):
        assert f" {package}" in command
    assert command.count("qemu-user") == 1


@pytest.mark.qemu
def test_doctor_here() -> None:
    statuses = doctor.check()
    assert doctor.install_missing(statuses) is None
    assert all(status.version and status.version[0].isdigit() for status in statuses)


def test_install_command_names_each_package_once() -> None:
    assert install_command(["qemu-arm", "qemu-aarch64"]) == "sudo apt-get install -y qemu-user"


def test_options_that_do_not_go_together(pair, leak, tmp_path) -> None:
    host, m4 = load_target("host"), load_target("cortex-m4")
    cases = [
        (r"sanitize on target cortex-m4\. Allowed: target host", [pair], m4, {"sanitize": True}),
        ("lto with clang", [pair], host, {"lto": True, "compiler": "clang"}),
        (r"compiler 'icc'\. Allowed: gcc, clang", [pair], host, {"compiler": "icc"}),
        ("two models are named pair", [pair, pair], host, {}),
        ("model pair has no step", [leak, pair], host, {"mode": "step"}),
        (r"mode 'walk'\. Allowed: run, step", [pair], host, {"mode": "walk"}),
    ]
    for message, models, target, options in cases:
        with pytest.raises(InputError, match=message):
            build_image(models, target, tmp_path, **options)


def test_emitted_c_with_a_warning_is_a_fault(pair, mutate: Mutate, tmp_path) -> None:
    folder = mutate(pair, {"return 0;": "int wide = *input; int8_t narrow = wide; return narrow - narrow;"})
    with pytest.raises(HarnessError, match="-Werror=conversion"):
        build_image([folder], load_target("host"), tmp_path / "b")
