"""States of other versions: brought to the code's own inside the turn, or refused by a Problem that says why."""

from typing import Any

import pytest
from pydantic import BaseModel

from ray_runtime import Agent, Envelope, Turn, downgrade, migration
from ray_runtime.state import codec_of
from ray_runtime.testing import run_turn
from schemas.problem import Refusal

State = dict[str, Any]


class Counted(BaseModel):
    count: int = 0
    last: str = ""


class Counter(Agent):
    """Version 1 had {seen: [...]}, version 2 {count}; version 4 may have {total}."""

    state: Counted
    state_version = 3

    @migration(1)
    @staticmethod
    def _count(state: State) -> State:
        return {"count": len(state["seen"])}

    @staticmethod
    @migration(2)
    def _last(state: State) -> State:
        return {**state, "last": "nobody"}

    @downgrade(4)
    @staticmethod
    def _back(state: State) -> State:
        return {"count": state["total"], "last": ""}

    async def on_message(self, turn: Turn, envelope: Envelope) -> int:
        if envelope.data == "sleep":
            await turn.sleep(5)
        self.state.count += 1
        return self.state.count


@pytest.mark.parametrize(
    ("stored", "version", "want"),
    [
        ({"seen": ["a", "b"]}, 1, Counted(count=3, last="nobody")),
        ({"count": 7}, 2, Counted(count=8, last="nobody")),
        ({"count": 7, "last": "me"}, 3, Counted(count=8, last="me")),
        ({"total": 1}, 4, Counted(count=2)),
    ],
)
def test_a_state_of_another_version_is_brought_to_this_one(stored: State, version: int, want: Counted) -> None:
    """Step by step, up and down; in the turn, and the same in its replay behind an await."""
    for data in ("now", "sleep"):
        came = run_turn(Counter, data, state=stored, state_version=version)
        assert (came.problem, came.state) == (None, want)


def test_an_agent_that_never_ran_has_no_version_yet() -> None:
    assert run_turn(Counter).reply == 1


def test_a_step_can_be_tested_alone() -> None:
    assert Counter._count({"seen": [1]}) == {"count": 1}


def test_a_state_of_an_unknown_version_is_refused() -> None:
    """By its version, with the function that is missing; the same turn does nothing else."""
    came = run_turn(Counter, state={"x": 1}, state_version=5)
    assert came.problem is not None
    assert (came.problem.reason, came.state) == ("STATE_VERSION", None)
    assert came.problem.metadata == {"agent": "Counter", "stored": 5, "current": 3, "missing": "downgrade(5)"}
    assert "no @downgrade(5) leads from 5 to 4" in came.problem.detail


class Young(Agent):
    state_version = 3

    @migration(2)
    @staticmethod
    def _second(state: State) -> State:
        return state


def test_a_missing_step_is_named() -> None:
    came = run_turn(Young, state={}, state_version=1)
    assert came.problem is not None
    assert came.problem.metadata["missing"] == "migration(1)"


def _with(step: Any) -> type[Agent]:
    return type("Odd", (Agent,), {"state_version": 2, "step": migration(1)(step)})


def _raises(state: State) -> State:
    raise KeyError("seen")


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (_raises, "@migration(1) of Odd raised KeyError: 'seen'"),
        (lambda state: [state], "@migration(1) of Odd must answer a dict, not list"),
        (lambda state: {"x": object()}, "is no JSON"),
    ],
)
def test_a_step_that_fails_is_a_problem(step: Any, said: str) -> None:
    """It names the versions, is not tried again, and the stored state stays."""
    came = run_turn(_with(step), state={}, state_version=1)
    assert came.problem is not None
    assert came.problem.reason == "STATE_VERSION"
    assert said in came.problem.detail
    assert came.problem.metadata["stored"] == 1


def test_a_step_that_differs_from_run_to_run_is_found() -> None:
    runs: list[int] = []

    def drifting(state: State) -> State:
        runs.append(1)
        return {"runs": len(runs)}

    came = run_turn(_with(drifting), state={}, state_version=1)
    assert came.problem is not None
    assert came.problem.reason == "NONDETERMINISTIC"


def _same(state: State) -> State:
    return state


@pytest.mark.parametrize(
    "body",
    [
        {"state_version": 0},
        {"state_version": "2"},
        {"state_version": True},
        {"state_version": 2, "a": migration(2)(_same)},
        {"state_version": 2, "a": downgrade(2)(_same)},
        {"state_version": 2, "a": migration(1)(_same), "b": migration(1)(_same)},
        {"state_version": 2, "a": migration(0)(_same)},
    ],
)
def test_a_way_that_leads_nowhere_is_no_code(body: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as refused:
        codec_of(type("Odd", (Agent,), body))
    assert refused.value.problem.reason == "INVALID_CODE"
