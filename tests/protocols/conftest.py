"""A stranger's package, installed into the path of a test by its entry points."""

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

Install = Callable[..., Path]


def install(folder: Path, package: str, source: str, **points: str) -> Path:
    """What pip would leave in a folder of the path: a module, and what its metadata says of it."""
    (folder / f"{package}.py").write_text(textwrap.dedent(source))
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = "".join(f"{name} = {value}\n" for name, value in points.items())
    (info / "entry_points.txt").write_text(f"[steward.protocols]\n{lines}")
    return folder


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs packages into a folder that is on the path."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def installed(package: str, source: str, **points: str) -> Path:
        return install(tmp_path, package, source, **points)

    return installed
