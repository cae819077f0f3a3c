"""The command line, run in this process or as the script that users run; and a stand-in for the plane."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from controlplane.cli.main import app
from tests.cli.standin import StandIn, serving


@dataclass
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return orjson.loads(self.out)


Steward = Callable[..., Ran]


@pytest.fixture
def plane() -> Iterator[StandIn]:
    with serving() as stand_in:
        yield stand_in


@pytest.fixture(autouse=True)
def _no_plane_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable and no folder of whoever runs the tests names a plane."""
    for name in [name for name in os.environ if name.startswith("STEWARD_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def steward(capsys: pytest.CaptureFixture[str]) -> Steward:
    """Run a command in this process."""

    def run(*words: str) -> Ran:
        capsys.readouterr()
        try:
            app(list(words), prog_name="steward")
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return run


@pytest.fixture
def script(tmp_path: Path) -> Steward:
    """Run a command as a process of its own."""

    def run(*words: str, stdin: bytes = b"", **env: str) -> Ran:
        done = subprocess.run(
            [sys.executable, "-m", "controlplane.cli.main", *words],
            input=stdin,
            capture_output=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **env},
            timeout=30,
            check=False,
        )
        return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())

    return run
