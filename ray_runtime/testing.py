"""Running one turn of an agent in a test: the real engine, with the answers of the world given.

`run_turn(Echo, {"text": "hi"})` runs the handler with the same step, journal and state code that a
host runs, and answers what it did. Effects and awaits are answered by `answers`: by the name of the
effect (`machine.read`), the address asked (`default/diagnoser`), or `ask_human` for a person; a function
gets the arguments, a Refusal is a failure. A function that `turn.compute` names is called in this process, unless
there is an answer by its name (`jobs:train`) or by `compute.run`. What has no answer fails the test, so that no
test passes by an answer that nobody gave. Every turn that commits is run again from its journal, and must come to
the same.
"""

import importlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import orjson
from pydantic import BaseModel

from ray_runtime.code import Loaded
from ray_runtime.computing import called
from ray_runtime.sdk import Agent
from ray_runtime.state import codec_of
from ray_runtime.turn import Activation
from ray_runtime.workspace import Workspace
from schemas.base import canonical
from schemas.branches import ORDER
from schemas.compute import COMPUTE, ComputeRun
from schemas.envelope import Envelope
from schemas.frames import Frame
from schemas.problem import Problem, Refusal
from schemas.wire import Ask, Commit, Entry, Failed, Park, Receipt, Recorded, Resolved, Run
from schemas.workspace import FILES_MAX, WORKSPACE_BYTES_MAX, Folder, saved

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
    workspace: dict[str, bytes] | None = None

    def of(self, kind: str) -> list[dict[str, Any]]:
        """What the turn did of one kind: send, publish, join, leave, request, ask, question, sleep, timer, spawn,
        conclude, continue, effect."""
        return [body for done, body in self.did if done == kind]


def run_turn(
    agent: type[Agent],
    data: Any = None,
    *,
    trigger: Trigger = "message",
    state: BaseModel | dict[str, Any] | None = None,
    state_version: int | None = None,
    workspace: Mapping[str, bytes] | None = None,
    config: dict[str, Any] | None = None,
    answers: Answers | None = None,
    **envelope: Any,
) -> Tested:
    """One turn of an agent, with its replay. More of the envelope is given by name, as `subject="tick"`.

    Of a batch, `data` is a list: the data of each envelope. `state_version` is the one that `state` was stored under,
    where that is not the agent's own. `workspace` is what the agent's folder holds before, path → bytes; without it
    there is no folder.
    """
    loaded = Loaded(agent, codec_of(agent), "")
    if trigger == "batch":
        data = [_message(f"msg_1_{number}", it) for number, it in enumerate(data)]
    message = Envelope(
        **{"id": "msg_1", "source": "/tests", "type": "steward.message", "time": STARTED, "data": data, **envelope}
    )
    version = state_version or loaded.codec.version
    scene = Scene(loaded, trigger, _state_bytes(loaded, state), version, config or {}, message, workspace)
    first = _Attempt(scene, answers or {}, [])
    first.run()
    if first.tested.problem is None:
        again = _Attempt(scene, {}, list(first.journal.values()))
        again.run()
        if again.outcome() != first.outcome():
            raise AssertionError(f"the replay came to {again.outcome()}, the turn to {first.outcome()}")
    return first.tested


class Scene(NamedTuple):
    """What a turn starts from, in every attempt; the state as it would be stored."""

    loaded: Loaded
    trigger: Trigger
    before: bytes
    state_version: int
    config: dict[str, Any]
    message: Envelope
    workspace: Mapping[str, bytes] | None


class _Attempt:
    """One attempt at the turn, with the world's side of its journal."""

    def __init__(self, scene: Scene, answers: Answers, journal: list[Recorded]) -> None:
        self.journal = {(it.branch, it.position): it for it in journal}
        self.tested = Tested()
        self._loaded = scene.loaded
        self._answers = answers
        self._frames: list[Frame] = []
        run = Run(
            "uid", "default", "tested", 1, int(bool(scene.before)), "agent:Agent", canonical(scene.config),
            scene.before, "turn_1", scene.trigger,
            scene.message.model_dump_json().encode(), STARTED.timestamp(), list(journal), 100_000, 67_108_864, 60,
            scene.state_version,
        )  # fmt: skip
        self._folder = _folder(scene.workspace)
        self._activation = Activation(
            run, scene.before, state_bytes_max=STATE_BYTES_MAX, send=self._frames.append, workspace=self._folder
        )

    def run(self) -> None:
        """To the end of the turn, answering whatever it waits for."""
        try:
            self._run()
        finally:
            if self._folder is not None:
                self._folder.remove()

    def _run(self) -> None:
        self._activation.start(self._loaded)
        while self._frames:
            frame = self._frames.pop(0)
            if isinstance(frame, Commit):
                self._record(frame.entries)
                self.tested.reply = orjson.loads(frame.reply)
                self.tested.state = self._loaded.codec.load(frame.state)
                if self._folder is not None:
                    self.tested.workspace = self._folder.contents()
            elif isinstance(frame, Failed):
                self.tested.problem = Problem.model_validate_json(frame.problem)
            elif isinstance(frame, Park):
                self._record(frame.entries)
                for place in frame.waits:
                    self._resolve(self.journal[place])
            elif isinstance(frame, Ask):
                self._perform(frame)

    def outcome(self) -> tuple[Any, Any, Any, str | None]:
        """What a replay must come to as well."""
        problem = self.tested.problem
        return self.tested.reply, self.tested.state, self.tested.workspace, problem.reason if problem else None

    def _record(self, entries: list[Entry]) -> None:
        for entry in entries:
            if entry.kind != ORDER:
                self.tested.did.append((entry.kind, orjson.loads(entry.body)))
            self._put(entry, "", b"", 0.0)

    def _put(self, entry: Entry | Recorded, outcome: str, result: bytes, at: float) -> None:
        place = entry.branch, entry.position
        self.journal[place] = Recorded(*place, entry.kind, entry.body, outcome, result, at, entry.state)

    def _perform(self, frame: Ask) -> None:
        """Answer an effect, and journal it with its receipt."""
        self._record(frame.entries)
        arguments = orjson.loads(frame.arguments)
        body = {"effect": frame.effect, "connection": frame.connection or None, "arguments": arguments}
        self.tested.did.append(("effect", {**body, "purpose": frame.purpose}))
        outcome, result = self._effect(frame.effect, arguments)
        at = STARTED.timestamp() + 1 + frame.position
        written = canonical({**body, "purpose": frame.purpose})
        self._put(Entry(frame.branch, frame.position, "effect", written, frame.state), outcome, result, at)
        self._activation.receipt(Receipt(frame.turn_id, frame.branch, frame.position, outcome, result, at))

    def _effect(self, effect: str, arguments: Any) -> tuple[str, bytes]:
        """What an effect comes to; a function that has no answer is called here."""
        if effect != COMPUTE:
            return self._answer(effect, arguments, "succeeded")
        given = ComputeRun.model_validate(arguments)
        name = given.function if given.function in self._answers else COMPUTE
        if name in self._answers:
            return self._answer(name, arguments, "succeeded")
        module, _, attribute = given.function.partition(":")
        came = called(getattr(importlib.import_module(module), attribute), given)
        return came.outcome, came.result

    def _resolve(self, entry: Recorded) -> None:
        """Answer an await that the turn waits for, unless it was answered before."""
        if entry.outcome:
            return
        if entry.kind == "gather":
            self._gather(entry)
            return
        answer = self._settle(entry)
        self._activation.resolved(Resolved("turn_1", entry.branch, entry.position, *answer))

    def _gather(self, entry: Recorded) -> None:
        """Answer the members in their order, until enough have answered."""
        body = orjson.loads(entry.body)
        answered, told, at = 0, [], STARTED.timestamp()
        for position in range(entry.position - body["members"], entry.position):
            member = self.journal[entry.branch, position]
            if answered >= body["needs"]:
                self._put(member, "cancelled", b"null", at)
                continue
            outcome, result, came_at = self._settle(member)
            answered, at = answered + (outcome in ("answered", "slept")), max(at, came_at)
            told.append((member.position, outcome, orjson.Fragment(result), came_at))
        self._put(entry, "gathered", b"null", at)
        frame = Resolved("turn_1", entry.branch, entry.position, "gathered", orjson.dumps(told), at)
        self._activation.resolved(frame)

    def _settle(self, entry: Recorded) -> tuple[str, bytes, float]:
        """Answer an await, and journal that at its place."""
        body = orjson.loads(entry.body)
        name, asked, kind = _awaited(entry.kind, body)
        outcome, result = self._answer(name, asked, kind)
        at = STARTED.timestamp() + 1 + entry.position + body.get("seconds", 0)
        self._put(entry, outcome, result, at)
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
            value = _chosen(asked, value) if name == "ask_human" else _reply(name, value)
        return outcome, canonical(value)

    def _given(self, name: str, asked: Any) -> Any:
        if name not in self._answers and name != "sleep":
            raise AssertionError(f"the turn asks {name}, and the test gives no answer: answers={{{name!r}: …}}")
        given = self._answers.get(name)
        return given(asked) if callable(given) else given


def _awaited(kind: str, body: dict[str, Any]) -> tuple[str, Any, str]:
    """By which name an await is answered, what it asks, and how it ends."""
    if kind == "ask":
        return body["to"], body["data"], "answered"
    if kind == "question":
        return "ask_human", body, "answered"
    return kind, None, "slept"


def _chosen(asked: dict[str, Any], value: Any) -> Any:
    """A person's answer, which the plane takes only if it is one of the choices."""
    if asked["choices"] is not None and value not in asked["choices"]:
        raise AssertionError(f"the turn asks for one of {asked['choices']}, and the test answers {value!r}")
    return value


def _reply(name: str, value: Any) -> dict[str, Any]:
    """The envelope that brings an answer."""
    namespace, _, agent = name.partition("/")
    source = f"/{namespace}/agents/{agent}"
    envelope = Envelope(id="msg_reply", source=source, type="steward.reply", time=STARTED, data=value)
    return envelope.model_dump(mode="json")


def _folder(files: Mapping[str, bytes] | None) -> Workspace | None:
    """A folder with these files, as large as one may be."""
    if files is None:
        return None
    found = Workspace(Path(tempfile.mkdtemp(prefix="workspace-")))
    given = [saved(path, body, executable=False) for path, body in files.items()]
    found.begin(Folder(WORKSPACE_BYTES_MAX, FILES_MAX, given))
    return found


def _message(message_id: str, data: Any) -> dict[str, Any]:
    envelope = Envelope(id=message_id, source="/tests", type="steward.message", time=STARTED, data=data)
    return envelope.model_dump(mode="json")


def _state_bytes(loaded: Loaded, state: BaseModel | dict[str, Any] | None) -> bytes:
    """The state before the turn, as it would be stored; none for an agent that never ran."""
    if state is None:
        return b""
    return canonical(state) if isinstance(state, dict) else loaded.codec.dump(state)
