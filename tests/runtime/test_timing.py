"""What a turn may say of a timer, and how it is recorded."""

from typing import Any

import orjson
import pytest

from controlplane.effects.entries import rows_of
from controlplane.effects.turnref import Outside, TurnRef
from controlplane.store import statements as sql
from ray_runtime.sdk import Agent, Turn
from ray_runtime.testing import Tested, run_turn
from schemas.envelope import Envelope
from schemas.wire import Entry


class Setter(Agent):
    """Sets a timer as the message says."""

    async def on_message(self, turn: Turn, envelope: Envelope) -> str:
        return await turn.timer(**envelope.data)


def _set(**given: Any) -> Tested:
    return run_turn(Setter, {"name": "t", **given})


def test_what_was_not_said_does_not_stand_in_the_record() -> None:
    """So a turn that was recorded before there were expressions and policies replays as it was."""
    assert _set(every_s=5).of("timer") == [{"name": "t", "after_s": None, "every_s": 5.0, "data": None}]
    recorded = {"name": "t", "after_s": None, "every_s": None, "data": None, "cron": "*/5 * * * *"}
    assert _set(cron="*/5 * * * *").of("timer") == [{**recorded, "zone": "UTC"}]
    berlin = _set(cron="*/5 * * * *", zone="Europe/Berlin", missed="all", data=None)
    assert berlin.of("timer") == [{**recorded, "zone": "Europe/Berlin", "missed": "all"}]


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({}, "/after_s"),
        ({"cron": "* * * * *", "every_s": 5}, "/cron"),
        ({"cron": "* * * * *", "after_s": 5}, "/cron"),
        ({"cron": "* * *"}, "/cron"),
        ({"cron": "0 0 30 2 *"}, "/cron"),
        ({"cron": "* " * 200}, "/cron"),
        ({"cron": 5}, "/cron"),
        ({"cron": "* * * * *", "zone": "Europe/Atlantis"}, "/zone"),
        ({"every_s": 5, "zone": "Europe/Berlin"}, "/zone"),
        ({"every_s": 5, "missed": "never"}, "/missed"),
        ({"after_s": 5, "missed": "all"}, "/missed"),
        ({"name": "watch:t", "every_s": 5}, "/name"),
        ({"name": "watch:t", "cancel": True}, "/name"),
    ],
)
def test_what_makes_no_timer_is_refused_at_the_call(given: dict[str, Any], field: str) -> None:
    """With the argument that is wrong."""
    found = _set(**given).problem
    assert found is not None
    assert (found.reason, found.field) == ("INVALID_VALUE", field)


def test_an_expression_becomes_its_next_time() -> None:
    """Computed when the segment is committed, in the zone that was given."""
    body = _set(cron="0 9 * * *", zone="Europe/Berlin", missed="skip").of("timer")[0]
    turn = TurnRef("a", "default", "x", "h", 1, 0, "t1", "m1", "message", "{}", 0, "d", 0.0, 0, recorded=False)
    entry = Entry("0", 0, "timer", orjson.dumps(body))
    new_year = 1_767_225_600.0  # 2026-01-01T00:00:00Z
    rows, after = rows_of(turn, [entry], new_year, Outside())
    due_at = new_year + 8 * 3600
    given = ("a", "t", due_at, None, "null", "0 9 * * *", "Europe/Berlin", "skip")
    assert (rows[0], after.due_at) == ((sql.TIMER_SET, given, 1), due_at)
