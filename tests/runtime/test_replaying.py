"""Turns that are run again after they have committed: what is found, where, and that nobody waits for it."""

import itertools
import random
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ray_runtime import Agent, Envelope, Turn, replaying
from ray_runtime.replaying import QUIET_S, STEP_S_MAX, WAITING_MAX, WAITING_S_MAX, Replays, replay_of
from schemas.frames import Frame
from schemas.problem import Problem
from schemas.wire import Commit, Diverged
from tests.runtime.scripted import ScriptedTurn, load
from tests.runtime.test_branches import Worker, World
from tests.runtime.test_gathering import agent

_count = itertools.count()
_seen: set[str] = set()


async def _sends_the_time(self: Agent, turn: Turn, envelope: Envelope) -> Any:
    await turn.sleep(1)
    turn.send("other", {"at": time.perf_counter_ns()})


async def _keeps_a_random_number(self: Agent, turn: Turn, envelope: Envelope) -> Any:
    self.state["deep"] = [{"number": random.random()}]


async def _keeps_the_time_for_a_while(self: Agent, turn: Turn, envelope: Envelope) -> Any:
    self.state["at"] = time.perf_counter_ns()
    await turn.perform("machine.read", what="cpu")
    self.state.clear()


async def _answers_with_a_counter(self: Agent, turn: Turn, envelope: Envelope) -> Any:
    return next(_count)


async def _goes_by_what_others_left(self: Agent, turn: Turn, envelope: Envelope) -> Any:
    others = {} if _seen else {"b": 1}
    others |= {"a": 1, "b": 1}
    _seen.add("x")
    self.state["order"] = others


async def _sends_more_the_second_time(self: Agent, turn: Turn, envelope: Envelope) -> Any:
    turn.send("other")
    if turn.turn_id in _seen:
        turn.send("other")
    _seen.add(turn.turn_id)


async def _raises_the_second_time(self: Agent, turn: Turn, envelope: Envelope) -> Any:
    if turn.turn_id in _seen:
        raise LookupError("the second time")
    _seen.add(turn.turn_id)


async def _asks_the_second_time(self: Agent, turn: Turn, envelope: Envelope) -> Any:
    if turn.turn_id in _seen:
        await turn.perform("machine.read", what="cpu")
    _seen.add(turn.turn_id)


async def _asks_the_first_time(self: Agent, turn: Turn, envelope: Envelope) -> Any:
    if turn.turn_id not in _seen:
        await turn.perform("machine.read", what="cpu")
    _seen.add(turn.turn_id)


def ended(handler: Any, **about: Any) -> ScriptedTurn:
    """A turn that was kept, and has committed."""
    turn = ScriptedTurn(agent(handler), kept=True, **about)
    assert isinstance(turn.run(), Commit)
    return turn


def found(turn: ScriptedTurn) -> Problem | None:
    """What its replay finds."""
    assert turn.activation is not None
    turn.activation.longest_s = 0.0  # the machine is busy
    replay = replay_of(turn.activation, load(turn.agent))
    assert replay is not None
    before = list(turn.frames)
    while replay.step():
        pass
    assert turn.frames == before, "nothing is said to the gate"
    return replay.found()


@pytest.mark.parametrize(
    ("handler", "first", "position", "words"),
    [
        (_sends_the_time, "effect", 1, 'at position 1 the journal holds {"body":{"data":{"at":'),
        (_keeps_a_random_number, "state", None, "/deep/0/number of the state was 0."),
        (_keeps_the_time_for_a_while, "state", 0, "when the handler came to the effect at position 0"),
        (_answers_with_a_counter, "reply", None, "the turn answered "),
        (_goes_by_what_others_left, "state", None, "with its keys in another order"),
        (_sends_more_the_second_time, "effect", 1, "at position 1 the journal holds nothing, the replay asked for {"),
        (_raises_the_second_time, "raised", None, "HANDLER_ERROR: LookupError: the second time (test_replaying.py"),
        (_asks_the_second_time, "effect", 0, "at position 0 the journal holds nothing, the replay asked for {"),
        (_asks_the_first_time, "effect", 0, 'the replay asked for {"body":null,"kind":"nothing"}'),
    ],
)
def test_the_first_difference_is_named(handler: Any, first: str, position: int | None, words: str) -> None:
    """Its kind, its place, both sides, and what to do."""
    _seen.clear()
    problem = found(ended(handler))
    assert problem is not None
    assert problem.reason == "REPLAY_DIVERGED"
    assert (problem.metadata["first"], problem.metadata["position"]) == (first, position)
    assert words in problem.detail.replace(f"{__file__.rpartition('/')[0]}/", "")
    assert "turn.now" in problem.detail
    assert problem.metadata["recorded"] != problem.metadata["asked"] or first == "state"


def test_what_a_turn_gives_is_the_same_again() -> None:
    """Time, randomness, ids, answers, timers, children, conclusions, continuations; from any state."""

    async def handler(self: Agent, turn: Turn, envelope: Envelope) -> Any:
        said = await turn.perform("machine.read", what="cpu")
        self.state["seen"] = [turn.now().isoformat(), turn.random(), turn.uuid(), said]
        turn.send("other", turn.random())
        turn.publish("news", turn.uuid())
        turn.request("other", 1)
        turn.timer("tick", every_s=5)
        turn.cancel_timer("tick")
        turn.spawn("child", config={"id": turn.uuid()})
        answer = await turn.ask("oracle", {"n": 1})
        await turn.sleep(5)
        turn.conclude("so it is", because=[answer], confidence=0.5)
        if envelope.data:
            turn.continue_as({"rest": turn.uuid()})
            return None
        return [turn.now().isoformat(), turn.random()]

    for data in (0, 1):
        for state in (b"", b'{"seen":[1]}'):
            turn = ended(handler, data=data, state=state, version=int(bool(state)))
            assert found(turn) is None
            assert found(turn) is None, "and once more"


def test_a_turn_that_was_replayed_before_is_whole() -> None:
    """What an earlier attempt did is in the journal that the gate handed back."""

    async def handler(self: Agent, turn: Turn, envelope: Envelope) -> Any:
        for n in range(3):
            self.state["n"] = [n, turn.now().isoformat()]
            await turn.sleep(n + 1)
        return self.state["n"] if not lies else next(_count)

    for lies in (False, True):
        turn = ScriptedTurn(agent(handler), kept=True)
        turn.attempt()
        turn.step()
        turn.attempt()
        while not isinstance(turn.frames[-1], Commit):
            turn.step()
        problem = found(turn)
        assert (problem is not None) is lies


@given(st.integers(0, 10**6), st.integers(0, 60))
def test_branches_are_answered_in_their_order_again(seed: int, deaths_after: int) -> None:
    """However answers came, and wherever the turn was cut off in between."""
    rng, world = random.Random(seed), World(Worker, kept=True)
    world.attempt()
    for _ in range(deaths_after):
        if world.over():
            break
        world.answer(rng.choice(world.open()))
    if not world.over():
        world.attempt()
    assert isinstance(world.finish(rng), Commit)
    world.activation.longest_s = 0.0  # the machine is busy
    replay = replay_of(world.activation, load(Worker))
    assert replay is not None
    while replay.step():
        pass
    assert replay.found() is None


def test_a_long_turn_and_a_large_one_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever held the loop too long at once, or whose journal grew too large."""

    async def handler(self: Agent, turn: Turn, envelope: Envelope) -> Any:
        turn.send("other", "x" * 1000)
        turn.send("other", "x")

    turn = ended(handler)
    assert turn.activation is not None
    turn.activation.longest_s = STEP_S_MAX + 0.001
    assert replay_of(turn.activation, load(turn.agent)) is None
    monkeypatch.setattr("ray_runtime.journal.KEPT_BYTES_MAX", 500)
    turn = ended(handler)
    assert turn.activation is not None
    assert replay_of(turn.activation, load(turn.agent)) is None


class Paced(Replays):
    """Replays whose time is the test's."""

    def __init__(self) -> None:
        self.said: list[Frame] = []
        self.holders: list[str] = []
        self.asked: list[float] = []
        self.then: Callable[[], None] | None = None
        super().__init__(self.said.append, self.holders.append)
        self.one_in = 1

    def _after(self, seconds: float, then: Callable[[], None]) -> Any:
        assert self.then is None, "it looks at one thing at a time"
        self.asked.append(seconds)
        self.then = then
        return self

    def cancel(self) -> None:
        self.then = None

    def go(self) -> bool:
        """The time has come; whether it will look again."""
        then, self.then = self.then, None
        if then is not None:
            then()
        return self.then is not None

    def put(self, turn: ScriptedTurn) -> None:
        assert turn.activation is not None
        turn.activation.longest_s = 0.0
        self.add(turn.activation, load(turn.agent))


async def _steps(self: Agent, turn: Turn, envelope: Envelope) -> Any:
    for n in range(5):
        await turn.sleep(n + 1)
    return next(_count)


def test_a_replay_stands_back_whenever_a_frame_comes() -> None:
    """Before it begins, and between its steps: then it waits until it is quiet again, and goes on where it was."""
    replays = Paced()
    replays.put(ended(_steps))
    for _ in range(3):
        replays.heard += 1
        assert replays.go()
    assert (replays.asked, replays.holders) == ([QUIET_S] * 4, [])
    assert replays.go()
    assert (replays.asked[4:], replays.holders) == ([0.0], ["replay/turn_1", ""]), "one step, and the loop has its turn"
    replays.heard += 1
    assert replays.go()
    assert (replays.asked[5:], len(replays.holders)) == ([QUIET_S], 2)
    while replays.go():
        pass
    assert len(replays.holders) == 2 * 6, "a step to each of five awaits, and one to the end"
    (told,) = replays.said
    assert isinstance(told, Diverged)
    assert (told.turn_id, told.first) == ("turn_1", "reply")


def test_replays_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many wait, for so long, each for so much of the loop; and all are forgotten with the gate."""
    replays = Paced()
    for _ in range(WAITING_MAX + 5):
        replays.put(ended(_answers_with_a_counter))
    while replays.go():
        pass
    assert len(replays.said) == WAITING_MAX
    replays.put(ended(_answers_with_a_counter))
    replays.forget()
    assert not replays.go()
    replays.put(ended(_answers_with_a_counter))
    now = time.monotonic()
    monkeypatch.setattr(replaying.time, "monotonic", lambda: now + WAITING_S_MAX + 1)
    assert not replays.go()
    monkeypatch.undo()
    monkeypatch.setattr(replaying, "ACTIVE_S_MAX", -1.0)
    replays.put(ended(_steps))
    while replays.go():
        pass
    assert len(replays.said) == WAITING_MAX


def test_a_turn_is_chosen_by_its_id() -> None:
    """The same at every attempt; about one in so many; none when it is off, or has a workspace."""
    replays = Paced()
    turn = ended(_answers_with_a_counter)
    assert turn.activation is not None
    run = turn.activation.run
    replays.one_in = 100
    chosen = [it for it in range(20_000) if replays.keeps(replace(run, turn_id=f"turn_{it}"))]
    assert 100 < len(chosen) < 400
    assert all(replays.keeps(replace(run, turn_id=f"turn_{it}")) for it in chosen)
    replays.one_in = 0
    assert not any(replays.keeps(replace(run, turn_id=f"turn_{it}")) for it in chosen)
