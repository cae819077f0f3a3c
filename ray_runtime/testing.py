"""Running one turn of an agent in a test: the real engine, with the answers of the world given.

`run_turn(Echo, {"text": "hi"})` runs the handler with the same step, journal and state code that a
host runs, and answers what it did. Effects and awaits are answered by `answers`: by the name of the
effect (`machine.read`) or the address asked (`default/diagnoser`); a function gets the arguments, a
Refusal is a failure. What has no answer fails the test, so that no test passes by an answer that
nobody gave. Every turn that commits is run again from its journal, and must come to the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
import orjson
from pydantic import BaseModel

from ray_runtime.code import Loaded
from ray_runtime.sdk import Agent
from ray_runtime.state import codec_of
from ray_runtime.turn import Activation
from schemas.base import canonical
from schemas.envelope import Envelope
from schemas.problem import Problem, Refusal
from schemas.wire import Ask, Commit, Entry, Failed, Frame, Park, Receipt, Recorded, Resolved, Run

Trigger = Literal["start", "message", "reply", "timer", "batch"]
Answers = Mapping[str, Any]
STARTED = datetime(2026, 1, 1, tzinfo=UTC)
STATE_BYTES_MAX = 1_048_576


@dataclass
class Tested:
    """What a turn came to: its reply, the state after it, and what it did, in order."""

    reply: Any = None
    state: Any = None
    did: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    problem: Problem | None = None

    def of(self, kind: str) -> list[dict[str, Any]]:
        """What the turn did of one kind: send, publish, request, ask, sleep, timer, spawn, effect."""
        return [body for done, body in self.did if done == kind]


def run_turn(
    agent: type[Agent],
    data: Any = None,
    *,
    trigger: Trigger = "message",
    state: BaseModel | dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    answers: Answers | None = None,
    **envelope: Any,
) -> Tested:
    """One turn of an agent, with its replay. More of the envelope is given by name, as `subject="tick"`.

    Of a batch, `data` is a list: the data of each envelope.
    """
    loaded = Loaded(agent, codec_of(agent), "")
    if trigger == "batch":
        data = [_message(f"msg_1_{number}", it) for number, it in enumerate(data)]
    message = Envelope(
        **{"id": "msg_1", "source": "/tests", "type": "steward.message", "time": STARTED, "data": data, **envelope}
    )
    before = _state_bytes(loaded, state)
    first = _Attempt(loaded, trigger, before, config or {}, message, answers or {}, [])
    first.run()
    if first.tested.problem is None:
        again = _Attempt(loaded, trigger, before, config or {}, message, {}, first.journal)
        again.run()
        if again.outcome() != first.outcome():
            raise AssertionError(f"the replay came to {again.outcome()}, the turn to {first.outcome()}")
    return first.tested


class _Attempt:
    """One attempt at the turn, with the world's side of its journal."""

    def __init__(
        self,
        loaded: Loaded,
        trigger: Trigger,
        before: bytes,
        config: dict[str, Any],
        message: Envelope,
        answers: Answers,
        journal: list[Recorded],
    ) -> None:
        self.journal = list(journal)
        self.tested = Tested()
        self._loaded = loaded
        self._answers = answers
        self._frames: list[Frame] = []
        run = Run(
            "uid", "default", "tested", 1, int(bool(before)), "agent:Agent", canonical(config), before, "turn_1",
            trigger,
            message.model_dump_json().encode(), STARTED.timestamp(), list(journal), 100_000, 67_108_864, 60,
        )  # fmt: skip
        self._activation = Activation(run, before, state_bytes_max=STATE_BYTES_MAX, send=self._frames.append)

    def run(self) -> None:
        """To the end of the turn, answering whatever it waits for."""
        self._activation.start(self._loaded)
        while self._frames:
            frame = self._frames.pop(0)
            if isinstance(frame, Commit):
                self._record(frame.entries)
                self.tested.reply = orjson.loads(frame.reply)
                self.tested.state = self._loaded.codec.load(frame.state)
            elif isinstance(frame, Failed):
                self.tested.problem = Problem.model_validate_json(frame.problem)
            elif isinstance(frame, Park):
                self._record(frame.entries)
                self._resolve(frame.entries[-1])
            elif isinstance(frame, Ask):
                self._perform(frame)

    def outcome(self) -> tuple[Any, Any, str | None]:
        """What a replay must come to as well."""
        problem = self.tested.problem
        return self.tested.reply, self.tested.state, problem.reason if problem else None

    def _record(self, entries: list[Entry]) -> None:
        for entry in entries:
            self.tested.did.append((entry.kind, orjson.loads(entry.body)))
            self.journal.append(Recorded(entry.branch, entry.position, entry.kind, entry.body, "", b"", 0.0))

    def _perform(self, frame: Ask) -> None:
        """Answer an effect, and journal it with its receipt."""
        self._record(frame.entries)
        arguments = orjson.loads(frame.arguments)
        body = {"effect": frame.effect, "connection": frame.connection or None, "arguments": arguments}
        self.tested.did.append(("effect", {**body, "purpose": frame.purpose}))
        outcome, result = self._answer(frame.effect, arguments, "succeeded")
        at = STARTED.timestamp() + 1 + frame.position
        written = canonical({**body, "purpose": frame.purpose})
        self.journal.append(Recorded(frame.branch, frame.position, "effect", written, outcome, result, at))
        self._activation.receipt(Receipt(frame.turn_id, frame.branch, frame.position, outcome, result, at))

    def _resolve(self, entry: Entry) -> None:
        """Answer the await that the turn is parked on."""
        if entry.kind == "gather":
            self._gather(entry)
            return
        answer = self._settle(-1, entry)
        self._activation.resolved(Resolved("turn_1", entry.branch, entry.position, *answer))

    def _gather(self, entry: Entry) -> None:
        """Answer the members in their order, until enough have answered."""
        body = orjson.loads(entry.body)
        answered, told, at = 0, [], STARTED.timestamp()
        for place in range(-1 - body["members"], -1):
            member = self.journal[place]
            if answered >= body["needs"]:
                self.journal[place] = msgspec.structs.replace(member, outcome="cancelled", result=b"null", at=at)
                continue
            asked = Entry(member.branch, member.position, member.kind, member.body)
            outcome, result, came_at = self._settle(place, asked)
            answered, at = answered + (outcome in ("answered", "slept")), max(at, came_at)
            told.append((member.position, outcome, orjson.Fragment(result), came_at))
        self.journal[-1] = Recorded(entry.branch, entry.position, entry.kind, entry.body, "gathered", b"null", at)
        frame = Resolved("turn_1", entry.branch, entry.position, "gathered", orjson.dumps(told), at)
        self._activation.resolved(frame)

    def _settle(self, place: int, entry: Entry) -> tuple[str, bytes, float]:
        """Answer an await, and journal that at its place."""
        body = orjson.loads(entry.body)
        name, kind = (body["to"], "answered") if entry.kind == "ask" else (entry.kind, "slept")
        outcome, result = self._answer(name, body.get("data"), kind)
        at = STARTED.timestamp() + 1 + entry.position + body.get("seconds", 0)
        self.journal[place] = Recorded(entry.branch, entry.position, entry.kind, entry.body, outcome, result, at)
        return outcome, result, at

    def _answer(self, name: str, asked: Any, outcome: str) -> tuple[str, bytes]:
        """Outcome and JSON of an answer; a Refusal given or raised is a failure."""
        try:
            value = self._given(name, asked)
        except Refusal as refusal:
            value = refusal
        if isinstance(value, Refusal):
            return "failed", canonical(value.problem.model_dump(mode="json"))
        if outcome == "answered":
            value = _reply(name, value)
        return outcome, canonical(value)

    def _given(self, name: str, asked: Any) -> Any:
        if name not in self._answers and name != "sleep":
            raise AssertionError(f"the turn asks {name}, and the test gives no answer: answers={{{name!r}: …}}")
        given = self._answers.get(name)
        return given(asked) if callable(given) else given


def _reply(name: str, value: Any) -> dict[str, Any]:
    """The envelope that brings an answer."""
    namespace, _, agent = name.partition("/")
    source = f"/{namespace}/agents/{agent}"
    envelope = Envelope(id="msg_reply", source=source, type="steward.reply", time=STARTED, data=value)
    return envelope.model_dump(mode="json")


def _message(message_id: str, data: Any) -> dict[str, Any]:
    envelope = Envelope(id=message_id, source="/tests", type="steward.message", time=STARTED, data=data)
    return envelope.model_dump(mode="json")


def _state_bytes(loaded: Loaded, state: BaseModel | dict[str, Any] | None) -> bytes:
    """The state before the turn, as it would be stored; none for an agent that never ran."""
    if state is None:
        return b""
    return canonical(state) if isinstance(state, dict) else loaded.codec.dump(state)
