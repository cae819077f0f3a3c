"""Divergences that no effect shows: what a handler keeps is held against a hash at each wait."""

from itertools import count
from typing import Any

import pytest

from ray_runtime import Agent, Envelope, Turn
from ray_runtime.divergence import in_order
from ray_runtime.state import HASHED_BYTES_MAX
from schemas.wire import Ask, Commit, Park
from tests.runtime.scripted import ScriptedTurn, problem_of


def keeping(kept: Any, wait: str = "sleep") -> type[Agent]:
    """An agent that keeps what `kept` gives, waits, and keeps it no more."""

    class Keeping(Agent):
        async def on_message(self, turn: Turn, envelope: Envelope) -> Any:
            await turn.sleep(1)
            self.state["kept"] = kept()
            await (turn.sleep(1) if wait == "sleep" else turn.perform("machine.read", what="cpu"))
            self.state.clear()

    return Keeping


@pytest.mark.parametrize("wait", ["sleep", "perform"])
def test_a_state_that_differs_in_a_replay_is_a_problem(wait: str) -> None:
    """At the wait behind it, with both hashes, though every effect is the same and the end would be, too."""
    turn = ScriptedTurn(keeping(count().__next__, wait))
    turn.attempt()
    turn.step()
    assert isinstance(turn.frames[-1], Park if wait == "sleep" else Ask)
    turn.attempt()
    found = problem_of(turn.frames[-1])
    assert found["reason"] == "REPLAY_DIVERGED"
    told = found["metadata"]
    assert (told["position"], told["recorded"]["state"]) == (1, turn.journal[1].state)
    assert told["asked"]["state"] not in (None, told["recorded"]["state"])


def test_a_state_that_is_the_same_goes_on() -> None:
    """Also one that is no JSON while its handler waits: it has no hash, and nothing is held against it."""
    for kept in (lambda: 5, object):
        turn = ScriptedTurn(keeping(kept))
        turn.attempt()
        turn.step()
        assert bool(turn.journal[1].state) is (kept is not object)
        turn.attempt()
        assert isinstance(turn.step(), Commit)


def test_a_large_state_is_hashed_at_durable_awaits_only() -> None:
    """So that an effect never costs more than a hash of so many bytes."""
    for size, hashed in ((HASHED_BYTES_MAX // 2, True), (HASHED_BYTES_MAX, False)):
        turn = ScriptedTurn(keeping(lambda: 5, "perform"), state=b'{"x":"' + b"x" * size + b'"}', version=1)
        turn.attempt()
        turn.step()
        assert (bool(turn.journal[0].state), bool(turn.journal[1].state)) == (True, hashed)


def test_what_a_replay_left_out_is_the_first_of_it() -> None:
    """Branches count as numbers."""
    assert sorted([("0.10", 0), ("0.2", 1), ("0", 7), ("0.2", 0)], key=in_order) == [
        ("0", 7), ("0.2", 0), ("0.2", 1), ("0.10", 0),
    ]  # fmt: skip
