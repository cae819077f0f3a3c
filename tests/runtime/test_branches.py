"""Branches of a turn against a world in memory: stepped one at a time, answered in any order, replayed from any cut."""

import random
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_runtime import Agent, Envelope, Refusal, Turn
from ray_runtime.testing import run_turn
from ray_runtime.turn import Activation
from schemas.base import canonical, short_id
from schemas.branches import BRANCHES_MAX, HELD, Place
from schemas.problem import Problem
from schemas.wire import Ask, Commit, Entry, Failed, Frame, Park, Receipt, Recorded, Resolved, Run
from tests.runtime.scripted import STARTED_AT, envelope, load
from tests.runtime.test_gathering import agent

DENIED = Problem(type="urn:x", title="x", status=403, detail="no", reason="NOT_GRANTED", recovery="escalate")


@dataclass
class World:
    """A gate in memory: it writes down segments whole, and answers what is open when told to."""

    of: type[Agent]
    data: Any = None
    journal: dict[Place, Recorded] = field(default_factory=dict)
    frames: list[Frame] = field(default_factory=list)
    effects: list[str] = field(default_factory=list)
    clock: float = STARTED_AT
    limits: tuple[int, int] = (1000, 1_048_576)
    kept: bool = False

    def attempt(self) -> None:
        recorded = [self.journal[it] for it in sorted(self.journal)]
        run = Run(
            "uid", "default", "a", 1, 0, "m:A", b"", b"", "turn_1", "message", envelope(self.data), STARTED_AT,
            recorded, *self.limits, 60,
        )  # fmt: skip
        self.frames.clear()
        self.activation = Activation(run, b"", state_bytes_max=1_048_576, send=self._take, kept=self.kept)
        self.activation.start(load(self.of))

    def _take(self, frame: Frame) -> None:
        self.frames.append(frame)
        if isinstance(frame, Ask | Park | Commit):
            for entry in frame.entries:
                self._record(entry)
        if isinstance(frame, Ask) and (frame.branch, frame.position) not in self.journal:
            body = {"effect": frame.effect, "connection": None, "purpose": frame.purpose}
            written = canonical({**body, "arguments": orjson.loads(frame.arguments)})
            self._record(Entry(frame.branch, frame.position, "effect", written, frame.state))
            self.effects.append(orjson.loads(frame.arguments)["text"])

    def _record(self, entry: Entry) -> None:
        there = [it for it in self.journal if it[0] == entry.branch]
        assert entry.position == len(there), "positions of a branch count up without a gap"
        place = entry.branch, entry.position
        self.journal[place] = Recorded(*place, entry.kind, entry.body, "", b"", self.clock, entry.state)

    def open(self) -> list[Place]:
        return [it.branch and (it.branch, it.position) for it in self.journal.values() if self._is_open(it)]

    def _is_open(self, it: Recorded) -> bool:
        return it.kind in ("effect", "ask", "sleep") and not it.outcome

    def answer(self, place: Place, *, tell: bool = True) -> None:
        """What is open there is done; the host hears of it, or is dead."""
        it = self.journal[place]
        self.clock += 1.5
        body = orjson.loads(it.body)
        outcome, value = "succeeded", body.get("arguments", {}).get("text")
        if it.kind == "ask":
            outcome, value = "answered", orjson.loads(envelope(body["data"]))
        elif it.kind == "sleep":
            outcome, value = "slept", None
        elif value == "fails":
            outcome, value = "failed", DENIED.model_dump(mode="json")
        done = Recorded(*place, it.kind, it.body, outcome, canonical(value), self.clock, it.state)
        self.journal[place] = done
        if tell:
            kind: Any = Receipt if it.kind == "effect" else Resolved
            act = self.activation.receipt if it.kind == "effect" else self.activation.resolved
            act(kind("turn_1", *place, outcome, done.result, done.at))

    def over(self) -> bool:
        return isinstance(self.frames[-1], Commit | Failed)

    def finish(self, rng: random.Random) -> Commit | Failed:
        while not self.over():
            self.answer(rng.choice(self.open()))
        last = self.frames[-1]
        assert isinstance(last, Commit | Failed)
        return last


def problem_of(frame: Frame) -> dict[str, Any]:
    assert isinstance(frame, Failed), frame
    found: dict[str, Any] = orjson.loads(frame.problem)
    return found


class Worker(Agent):
    """Branches that share state, randomness and time, send, ask and gather again: any slip shows in the reply."""

    async def on_message(self, turn: Turn, envelope: Envelope) -> Any:
        seen: list[Any] = []

        async def part(name: str, steps: int) -> str:
            for step in range(steps):
                seen.append([await turn.perform("notes.once", text=f"{name}{step}"), turn.random(), turn.uuid()])
                turn.send("other", [name, step, turn.now().isoformat()])
            return name

        async def asks() -> Any:
            answer = await turn.ask("oracle", len(seen))
            seen.append(["asked", answer.data])
            inner = await turn.gather(part("d", 1), turn.perform("notes.once", text="e"))
            await turn.gather(turn.sleep(1), turn.perform("notes.once", text="f"))
            return inner

        first = await turn.perform("notes.once", text="first")
        found = await turn.gather(part("a", 2), part("b", 3), turn.perform("notes.once", text="c"), asks())
        last = await turn.perform("notes.once", text="last")
        return {"first": first, "found": found, "seen": seen, "last": last}


@given(st.integers(0, 10**6), st.integers(0, 60), st.integers(0, 60))
def test_a_turn_that_dies_anywhere_ends_as_its_journal_says(seed: int, first: int, second: int) -> None:
    """Answers in any order; two deaths, each with what was answered and not heard: every effect is intended once."""
    rng, world = random.Random(seed), World(Worker)
    world.attempt()
    for deaths_after in (first, second):
        for _ in range(deaths_after):
            if world.over():
                break
            world.answer(rng.choice(world.open()))
        if world.over():
            break
        for place in world.open():
            if rng.random() < 0.3:
                world.answer(place, tell=False)
        world.attempt()
    end = world.finish(rng)
    assert isinstance(end, Commit), problem_of(end)
    assert sorted(world.effects) == sorted(["first", "a0", "a1", "b0", "b1", "b2", "c", "d0", "e", "f", "last"])
    world.attempt()
    again = world.frames[-1]
    assert isinstance(again, Commit), problem_of(again)
    assert (again.reply, again.state_digest, again.entries) == (end.reply, end.state_digest, [])
    assert orjson.loads(end.reply)["found"] == ["a", "b", "c", ["d", "e"]]


def test_effects_of_a_gathering_are_on_their_way_at_once() -> None:
    """Each is asked before any is answered, in a branch of its own; what each answers stands in its place."""

    async def handler(self: Agent, turn: Turn, envelope: Envelope) -> Any:
        turn.send("other", 1)
        return await turn.gather(*(turn.perform("notes.once", text=str(it)) for it in range(3)))

    world = World(agent(handler))
    world.attempt()
    asked = [(it.branch, it.position, len(it.entries)) for it in world.frames if isinstance(it, Ask)]
    assert asked == [("0.1", 0, 1), ("0.2", 0, 0), ("0.3", 0, 0)]
    for branch in ("0.3", "0.1", "0.2"):
        world.answer((branch, 0))
    end = world.frames[-1]
    assert isinstance(end, Commit)
    assert orjson.loads(end.reply) == ["0", "1", "2"]
    assert [(it.branch, orjson.loads(it.body)) for it in end.entries] == [
        ("order", {"came": [["0.3", 0], ["0.1", 0], ["0.2", 0]]})
    ]


def test_the_first_failure_is_raised_when_all_have_ended() -> None:
    """First by completion, not by place; what the others do is done. Or each stands in its place."""

    async def handler(self: Agent, turn: Turn, envelope: Envelope) -> Any:
        async def breaks() -> None:
            await turn.perform("notes.once", text="x")
            raise LookupError("late")

        members = [breaks(), turn.perform("notes.once", text="fails"), turn.perform("notes.once", text="good")]
        if envelope.data:
            return [repr(it) for it in await turn.gather(*members, return_exceptions=True)]
        try:
            return await turn.gather(*members)
        except (LookupError, Refusal) as error:
            return type(error).__name__

    for order, raised in ((("0.1", "0.2", "0.3"), "LookupError"), (("0.2", "0.1", "0.3"), "Refusal")):
        world = World(agent(handler))
        world.attempt()
        for branch in order:
            assert not world.over(), "it ends with the last of its branches"
            world.answer((branch, 0))
        end = world.frames[-1]
        assert isinstance(end, Commit)
        assert orjson.loads(end.reply) == raised
    every = World(agent(handler), data=1)
    every.attempt()
    end = every.finish(random.Random(1))
    assert isinstance(end, Commit)
    kinds = [it.split("(")[0] for it in orjson.loads(end.reply)]
    assert kinds == ["LookupError", "Refusal", "'good'"]


def test_a_held_effect_parks_its_branch_alone() -> None:
    """The others go on; when all wait, the turn parks, and says for what and what reached it before."""

    async def handler(self: Agent, turn: Turn, envelope: Envelope) -> Any:
        async def part() -> Any:
            return [await turn.perform("notes.once", text=it) for it in ("a", "b")]

        return await turn.gather(turn.perform("notes.once", text="held"), part(), turn.sleep(5))

    world = World(agent(handler))
    world.attempt()
    rest = world.frames[-1]
    assert isinstance(rest, Park)
    assert ([it.kind for it in rest.entries], rest.waits) == (["sleep"] if rest.entries else [], [("0.3", 0)])
    world.activation.receipt(Receipt("turn_1", "0.1", 0, HELD, b"null", 0.0))
    rest = world.frames[-1]
    assert isinstance(rest, Park)
    assert (rest.entries, rest.waits, rest.heard, world.activation.phase) == ([], [("0.1", 0), ("0.3", 0)], 1, "effect")
    world.answer(("0.2", 0))
    world.answer(("0.2", 1))
    rest = world.frames[-1]
    assert isinstance(rest, Park)
    assert ([it.kind for it in rest.entries], rest.heard, world.activation.phase) == (["order"], 3, "parked")
    world.answer(("0.3", 0))
    world.activation.resolved(Resolved("turn_1", "0.1", 0, "succeeded", b'"late"', 0.0))
    end = world.frames[-1]
    assert isinstance(end, Commit)
    assert orjson.loads(end.reply) == ["late", ["a", "b"], None]


def test_a_message_of_a_branch_has_an_id_of_its_own() -> None:
    """By turn, branch and position, so that a retry makes it again, and no other branch does."""

    async def handler(self: Agent, turn: Turn, envelope: Envelope) -> Any:
        async def part() -> str:
            return str(turn.send("other"))

        return await turn.gather(part(), part())

    assert run_turn(agent(handler)).reply == [short_id("msg", "turn_1", f"0.{it}", 0) for it in (1, 2)]


async def _too_many(self: Agent, turn: Turn, envelope: Envelope) -> Any:
    await turn.gather(*(turn.perform("notes.once", text="x") for _ in range(BRANCHES_MAX + 1)))


async def _too_many_nested(self: Agent, turn: Turn, envelope: Envelope) -> Any:
    async def part() -> Any:
        await turn.gather(*(turn.perform("notes.once", text="x") for _ in range(BRANCHES_MAX // 2)))

    await turn.gather(part(), part())


async def _too_deep(self: Agent, turn: Turn, envelope: Envelope) -> Any:
    async def part() -> Any:
        await turn.gather(part())

    await turn.gather(part())


async def _goes_on(self: Agent, turn: Turn, envelope: Envelope) -> Any:
    async def part() -> Any:
        turn.continue_as(1)

    await turn.gather(part())


async def _awaits_a_stranger(self: Agent, turn: Turn, envelope: Envelope) -> Any:
    import asyncio

    await turn.gather(asyncio.sleep(1), turn.perform("notes.once", text="x"))


async def _never_awaited(self: Agent, turn: Turn, envelope: Envelope) -> Any:
    async def part() -> Any:
        await turn.sleep(1)

    turn.gather(part())


@pytest.mark.parametrize(
    ("handler", "reason", "word"),
    [
        (_too_many, "LIMIT_REACHED", "at most 100 branches"),
        (_too_many_nested, "LIMIT_REACHED", "at most 100 branches"),
        (_too_deep, "LIMIT_REACHED", "deep"),
        (_goes_on, "INVALID_VALUE", "continue_as"),
        (_awaits_a_stranger, "NONDETERMINISTIC", ""),
        (_never_awaited, "HANDLER_ERROR", "never awaited"),
    ],
)
def test_what_branches_may_not_do_ends_the_turn(handler: Any, reason: str, word: str) -> None:
    """With a Problem that names it."""
    world = World(agent(handler))
    world.attempt()
    found = problem_of(world.frames[-1])
    assert found["reason"] == reason
    assert word in found["detail"]


def test_a_replay_that_gathers_otherwise_is_told_so() -> None:
    """Fewer branches than the journal holds answers of: the first difference is named."""

    async def handler(self: Agent, turn: Turn, envelope: Envelope) -> Any:
        await turn.gather(*(turn.perform("notes.once", text=str(it)) for it in range(many)))
        return await turn.perform("notes.once", text="end")

    many = 3
    world = World(agent(handler))
    world.attempt()
    for branch in ("0.3", "0.2", "0.1"):
        world.answer((branch, 0))
    many = 2
    world.attempt()
    assert problem_of(world.frames[-1])["reason"] == "REPLAY_DIVERGED"
