"""The registry of fault points: each is in the code once, is armed by a test, and is inert but for tests."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas import faults
from schemas.faults import MOMENTS, POINTS, UNITS, VARIABLE
from tests.conftest import SOAK
from tests.faults import (
    test_crash_apart,
    test_crash_effects,
    test_crash_gate,
    test_crash_held,
    test_crash_plane,
    test_crash_stack,
)
from tests.faults.points import SAMPLED, around
from tests.tidy import sources

COMMITS = {"commit": 0, "_commit": 0, "_submit": 1}  # where the name of the unit stands


def _calls(path: Path) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        of_faults = isinstance(node.func.value, ast.Name) and node.func.value.id == "faults"
        at = 0 if of_faults and node.func.attr == "at" else COMMITS.get(node.func.attr)
        if at is None or len(node.args) <= at or not isinstance(node.args[at], ast.Constant):
            continue
        name = node.args[at].value  # type: ignore[attr-defined]
        if isinstance(name, str):
            yield ("point" if node.func.attr == "at" else "unit"), name


def test_every_point_is_in_the_code_once() -> None:
    """A point that is named twice, nowhere, or without a word on what it lies between breaks the build."""
    found = Counter(call for path in sources() if path.name != "faults.py" for call in _calls(path))
    units = {name for kind, name in found if kind == "unit"}
    points = {name for kind, name in found if kind == "point"}
    assert units == set(UNITS)
    assert points | {f"gate.{unit}.{it}" for unit in UNITS for it in MOMENTS} == set(POINTS)
    assert {call: many for call, many in found.items() if many > 1} == {}


def test_every_point_is_fired_by_a_test() -> None:
    """Every point kills a process of some file, and `conftest.py` holds each file to what it says here.

    Of the three points of a sampled unit a soak fires all, and other runs one, which the seed chooses.
    """
    files = (test_crash_apart, test_crash_effects, test_crash_gate, test_crash_held, test_crash_plane, test_crash_stack)
    fired = frozenset[str]().union(*(it.FIRES for it in files))
    assert fired >= {it for it in POINTS if it.split(".")[1] not in SAMPLED} | set(around(*SAMPLED))
    assert fired == set(POINTS) if SOAK else fired < set(POINTS)


def test_nothing_is_armed_without_a_folder_that_nobody_else_can_enter(tmp_path: Path) -> None:
    """No variable, no folder, or one that others may enter: the points are inert."""
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    (folder / faults.PLAN).write_text('[{"id":"x","point":"plane.kept"}]')
    command = [sys.executable, "-c", "from schemas import faults; faults.at('plane.kept'); print(faults.armed())"]
    for value in ("", str(tmp_path / "none"), str(folder)):
        done = subprocess.run(command, env={VARIABLE: value}, capture_output=True, text=True, check=False, timeout=30)
        assert (done.returncode, done.stdout) == (0, "False\n"), done
    folder.chmod(0o700)
    done = subprocess.run(command, env={VARIABLE: str(folder)}, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == -9
    done = subprocess.run(command, env={VARIABLE: str(folder)}, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout) == (0, "True\n"), "a fault happens once"


def test_a_point_that_nobody_named_is_an_error(tmp_path: Path) -> None:
    """A misspelt point fails at its first passing, in every armed process."""
    tmp_path.chmod(0o700)
    faults.arm(tmp_path)
    try:
        with pytest.raises(RuntimeError, match="no fault point"):
            faults.at("plane.nowhere")
    finally:
        faults.arm(None)
    assert not faults.armed()
