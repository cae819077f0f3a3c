"""Protocols are found by entry points: ours, a stranger's, and those that are left out."""

from importlib.metadata import entry_points

import orjson
import pytest
from sqlalchemy.dialects import sqlite

from controlplane.mesh.dataschema import data_fault
from controlplane.protocols.registry import Registry, Trouble, load, registry
from controlplane.wiring import composition
from schemas.connection import OURS
from schemas.protocols import GROUP
from tests.protocols.conftest import Install

GOOD = """
from schemas.protocols import Declaration
PROTOCOL = Declaration("gopher", lambda around: ())
OTHER = Declaration("http", lambda around: ())
class Thief:
    name = "machine.read"
THEFT = Declaration("theft", lambda around: (Thief(),))
BAD = 7
def broken(around): raise LookupError("no such thing")
LATE = Declaration("late", broken)
"""


def test_our_protocols_are_found_by_entry_points_like_a_stranger_s() -> None:
    """Nothing of ours is left out, and each that has a model can be connected to."""
    found = registry()
    assert found.troubles == ()
    assert {name for name, it in found.declared.items() if it.connects} == OURS
    assert {"machine.read", "http.request", "llm.request", "compute.run"} <= found.performers(data_fault).keys()


def test_what_can_not_be_loaded_keeps_nobody_else_from_working(stranger: Install) -> None:
    """A broken import, no declaration, another name, a name that is taken, a stolen effect: each is told, once."""
    stranger("good", GOOD, gopher="good:PROTOCOL")
    stranger("bad", "import nowhere_at_all", broken="bad:PROTOCOL")
    stranger("worse", "raise SystemExit(1)", worse="worse:PROTOCOL")
    points = {"none": "good:BAD", "other": "good:PROTOCOL", "http": "good:OTHER", "theft": "good:THEFT"}
    stranger("odd", "", late="good:LATE", **points)
    found = load(entry_points(group=GROUP))
    assert set(found.declared) == set(registry().declared) | {"gopher"}
    assert {it.name: it.package for it in found.troubles} == {
        "broken": "bad", "worse": "worse", "none": "odd", "other": "odd", "http": "odd", "theft": "odd", "late": "odd",
    }  # fmt: skip
    assert "nowhere_at_all" in next(it.why for it in found.troubles if it.name == "broken")


def test_what_is_left_out_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an event, with the package and why."""
    trouble = Trouble("telnet", "old-ways", "ImportError: nowhere")
    monkeypatch.setattr(composition, "registry", lambda: Registry({}, (trouble,)))
    statements = composition._started(1.0).compiled(sqlite.dialect())
    told = [params for _, params, _ in statements]
    assert [it[0] for it in told] == ["plane.started", "protocol.refused"]
    assert orjson.loads(told[1][-1]) == {"name": "telnet", "package": "old-ways", "why": "ImportError: nowhere"}
