"""Why an agent is awake, in words that say what would change it."""

import time
from types import SimpleNamespace
from typing import Any

import pytest

from controlplane.effects.node import Bounds
from controlplane.effects.reasons import why_awake
from controlplane.effects.slots import Slot

HELD, FLYING = ("0.1", 0), ("0.2", 3)


def _slot(**given: Any) -> Slot:
    slot = Slot("agent_a", "default", "a", 1, 0, 0, None, False, None, {"code": {"digest": "d"}})  # noqa: FBT003
    for name, value in given.items():
        setattr(slot, name, value)
    return slot


def _why(slot: Slot, *, waited_for: bool = False) -> str:
    hosts = SimpleNamespace(waited_for=lambda _: waited_for, why_not=lambda _: "")
    nodes = SimpleNamespace(open=lambda: [""])
    node: Any = SimpleNamespace(hosts=hosts, nodes=nodes, bounds=Bounds(acquiring_max=7), steady=time.monotonic)
    return why_awake(node, slot) or ""


def test_who_waits_to_be_acquired_does_not_wait_for_a_host() -> None:
    """There may be hosts enough: the line is another."""
    assert _why(_slot(queued=True)).startswith("it waits in line: 7 agents at once")
    assert _why(_slot(queued=True), waited_for=True) == "it waits for a host"


@pytest.mark.parametrize(
    ("effects", "held", "said"),
    [
        (set(), set(), "it is running t"),
        ({FLYING, HELD}, {HELD}, "it waits for effect 0.2:3 of t"),
        ({HELD}, {HELD}, "it is running t, of which effect 0.1:0 waits for an operator (turns.settle)"),
    ],
)
def test_what_an_operator_shall_settle_is_not_on_its_way(effects: set[Any], held: set[Any], said: str) -> None:
    """Of a turn with branches, one that waits for an operator is told as that, and only where nothing is on its way."""
    turn = SimpleNamespace(turn_id="t", trigger="message", digest="d")
    slot = _slot(state="running", turn=turn, effects=effects, held=held, started=time.monotonic())
    assert _why(slot).startswith(f"{said}, since ")
