"""Folders that hold no CMSIS-NN, and releases that are not known to give our bytes, are refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

import projgen
from projgen import cmsis_nn
from projgen.cmsis_nn import CmsisNN
from projgen.errors import InputError
from projgen.ir.attrs import Conv2d
from projgen.ops import conv
from projgen.options import CompileOptions
from projgen.quant.model import QuantizedModel


def checked(path: object) -> CompileOptions:
    return CompileOptions.checked("m", "cmsis-nn", "fast", "speed", path)  # type: ignore[arg-type]


def test_wrong_folders_are_named(library: CmsisNN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(cmsis_nn.ENVIRONMENT, raising=False)
    where = r"Change it in: CMSIS_NN_ROOT, or cmsis_nn \(--cmsis-nn\)\.$"
    with pytest.raises(InputError, match=f"needs CMSIS-NN, and no folder is named. .*release 4.0.0, .*{where}"):
        checked(None)
    with pytest.raises(InputError, match=f"nowhere does not exist.*{where}"):
        checked(tmp_path / "nowhere")
    with pytest.raises(InputError, match=rf"holds no CMSIS-NN \(Include/arm_nnfunctions.h and Source\).*{where}"):
        checked(tmp_path)
    monkeypatch.setenv(cmsis_nn.ENVIRONMENT, str(tmp_path))
    with pytest.raises(InputError, match="holds no CMSIS-NN"):
        checked(None)
    with pytest.raises(InputError, match=r"the back end is c. Allowed: backend cmsis-nn"):
        CompileOptions.checked("m", "c", "fast", "speed", library.root)


def fake(folder: Path, revision: str, core: bool) -> Path:
    (folder / "Include").mkdir(parents=True)
    (folder / "Source").mkdir()
    (folder / "Include" / "arm_nnfunctions.h").write_text(f" * $Revision:    V.{revision}\n")
    (folder / "Include" / "arm_nn_math_types.h").write_text('#include "cmsis_compiler.h"\n' if core else "")
    return folder


def test_releases_that_are_not_known_are_refused(tmp_path: Path) -> None:
    old = fake(tmp_path / "old", "10.0.3", core=False)
    with pytest.raises(InputError, match=r"with revision 10.0.3 .* no release that is known to give .* 7.0.0\. Change"):
        checked(old)
    bare = fake(tmp_path / "bare", "11.2.0", core=True)
    with pytest.raises(InputError, match=r"includes cmsis_compiler\.h of CMSIS core, which is not beside it"):
        checked(bare)
    assert checked(fake(tmp_path / "new", "18.0.0", core=False)).cmsis_nn == CmsisNN(
        (tmp_path / "new").resolve(), (7, 0, 0), ((tmp_path / "new").resolve() / "Include",)
    )


def test_another_release_at_build_is_refused(named: None, library: CmsisNN, tmp_path: Path) -> None:
    sample = conv.sample("c", (6, 6, 4), 8, (3, 3), Conv2d())
    made = projgen.compile(QuantizedModel(sample.graph), target="host", out=tmp_path / "m", backend="cmsis-nn")
    other = "16.0.0" if library.release != (6, 0, 0) else "18.0.0"
    made.cmsis_nn = fake(tmp_path / "other", other, core=False)
    with pytest.raises(InputError, match=f"model model was compiled for CMSIS-NN {library.version}, and .* holds "):
        made.build()
    with pytest.raises(InputError, match="CMSIS-NN is written for Cortex-M"):
        projgen.compile(QuantizedModel(sample.graph), target="cortex-a53", out=tmp_path / "a", backend="cmsis-nn")
    assert not (tmp_path / "a").exists()
