"""`turn.conclude`: what a turn came to, and because of what, as its journal holds it."""

from typing import Any

import pytest

from ray_runtime import Agent, Envelope, Refusal, Turn, testing
from schemas.conclusion import TEXT_CHARS_MAX


class Concluding(Agent):
    """Leans on everything that can be leant on."""

    async def on_message(self, turn: Turn, envelope: Envelope) -> Any:
        first = await turn.perform("machine.read", what="cpu")
        again = await turn.perform("machine.read", what="cpu")
        load = turn.perform("machine.read", what="load")
        await load
        asked, slept = turn.ask("ann"), turn.sleep(1)
        (reply, _), told = await turn.gather(asked, slept), turn.send("bob")
        before = turn.conclude("so it is", [first, load, asked], confidence=1)
        assert first == again
        turn.conclude("so", [envelope, reply, told, before, before], ["or not"], 0.25, seen=["msg_7"])


def test_a_conclusion_holds_references() -> None:
    """Equal results are the latest of them; what is given twice is one reference; a replay makes the same."""
    found = testing.run_turn(Concluding, answers={"machine.read": {"cpu": 1}, "default/ann": 5})
    assert found.problem is None
    first, last = found.of("conclude")
    assert first["because"] == ["turn_1:0:2", "turn_1:0:3"]
    assert last == {
        "text": "so",
        "because": ["msg_1", "msg_reply", last["because"][2], "turn_1:0:7"],
        "seen": ["msg_7"],
        "alternatives": ["or not"],
        "confidence": 0.25,
    }


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"text": ""}, "/text"),
        ({"text": "x" * (TEXT_CHARS_MAX + 1)}, "/text"),
        ({"because": "msg_1"}, "/because"),
        ({"because": [5]}, "/because/0"),
        ({"because": ["msg_1", "not an id"]}, "/because/1"),
        ({"because": [{"never": "came"}]}, "/because/0"),
        ({"seen": [None]}, "/seen/0"),
        ({"alternatives": [""]}, "/alternatives/0"),
        ({"confidence": 1.5}, "/confidence"),
        ({"confidence": float("nan")}, "/confidence"),
    ],
)
def test_what_is_no_conclusion_is_refused_by_its_field(given: dict[str, Any], field: str) -> None:
    """Nothing is recorded of it, and the handler may go on."""

    class Wrong(Agent):
        async def on_message(self, turn: Turn, envelope: Envelope) -> Any:
            try:
                turn.conclude(**{"text": "so", **given})
            except Refusal as refusal:
                return refusal.problem.field

    found = testing.run_turn(Wrong)
    assert (found.reply, found.did) == (field, [])
