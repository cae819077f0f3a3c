"""A scripted gate for turns in memory: the host's protocol peer, kept as small as its law.

It stands on the other side of our own wire: it keeps the journal as a gate does (an intent before
its receipt, a segment as a whole or not at all), answers effects and awaits from a script, and runs
the turn again from the journal whenever told to. It guards nothing and stores nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from ray_runtime.code import Loaded
from ray_runtime.sdk import Agent
from ray_runtime.state import codec_of
from ray_runtime.turn import Activation
from schemas.base import canonical
from schemas.frames import Frame
from schemas.wire import Ask, Commit, Entry, Failed, Park, Receipt, Recorded, Resolved, Run

Script = Callable[[str, dict[str, Any]], tuple[str, Any]]
STARTED_AT = 1_700_000_000.0


def envelope(data: Any = None, **rest: Any) -> bytes:
    """An envelope as a gate delivers it."""
    base = {"id": "msg_1", "source": "/default/agents/a", "type": "steward.message", "time": "2026-01-01T00:00:00Z"}
    return canonical({**base, "data": data, **rest})


def load(agent: type[Agent]) -> Loaded:
    """An agent class as `code` would load it."""
    return Loaded(agent, codec_of(agent), "")


def echo_script(kind: str, body: dict[str, Any]) -> tuple[str, Any]:
    """Effects give back their arguments, asks what was asked, sleeps end."""
    if kind == "effect":
        return "succeeded", {"did": body["effect"], **body["arguments"]}
    if kind == "ask":
        return "answered", orjson.loads(envelope({"asked": body["data"]}))
    return "slept", None


@dataclass
class ScriptedTurn:
    """One turn of one agent, with its journal, across any number of attempts."""

    agent: type[Agent]
    data: Any = None
    script: Script = echo_script
    trigger: str = "message"
    state: bytes = b""
    version: int = 0
    effects_max: int = 1000
    journal_bytes_max: int = 1_048_576
    turn_s_max: float = 60
    state_bytes_max: int = 1_048_576
    message: bytes = b""
    kept: bool = False
    journal: dict[int, Recorded] = field(default_factory=dict)
    asked: list[tuple[int, str, bytes]] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    clock: float = STARTED_AT
    activation: Activation | None = None

    def attempt(self) -> Activation:
        """Run the turn from the journal as it is."""
        recorded = [self.journal[p] for p in sorted(self.journal)]
        run = Run(
            "uid", "default", "a", 1, self.version, "m:A", b'{"k":1}', self.state, "turn_1", self.trigger,
            self.message or envelope(self.data), STARTED_AT, recorded,
            self.effects_max, self.journal_bytes_max, self.turn_s_max,
        )  # fmt: skip
        self.frames.clear()
        about: Any = {"state_bytes_max": self.state_bytes_max, "kept": self.kept}
        self.activation = Activation(run, self.state, send=self.take, **about)
        self.activation.start(load(self.agent))
        return self.activation

    def take(self, frame: Frame) -> None:
        """Write down what the host sent, as one transaction a frame."""
        self.frames.append(frame)
        if isinstance(frame, Ask | Park | Commit):
            for entry in frame.entries:
                self._record(entry)
        if isinstance(frame, Ask):
            body = {"effect": frame.effect, "connection": frame.connection or None, "purpose": frame.purpose}
            written = canonical({**body, "arguments": orjson.loads(frame.arguments)})
            if frame.position not in self.journal:
                self._record(Entry(frame.branch, frame.position, "effect", written, frame.state))
            self.asked.append((frame.position, frame.effect, frame.arguments))

    def answer(self) -> Recorded:
        """The script's answer to what is open, recorded."""
        position, entry = max(self.journal.items())
        outcome, result = self.script(entry.kind, orjson.loads(entry.body))
        self.clock += 1.5
        answered = Recorded("0", position, entry.kind, entry.body, outcome, canonical(result), self.clock, entry.state)
        self.journal[position] = answered
        return answered

    def step(self) -> Frame:
        """Answer what is open, in place; the frame that came then."""
        assert self.activation is not None
        last, answered = self.frames[-1], self.answer()
        if isinstance(last, Ask):
            kind: Any = Receipt
            act: Any = self.activation.receipt
        else:
            kind, act = Resolved, self.activation.resolved
        act(kind("turn_1", "0", answered.position, answered.outcome, answered.result, answered.at))
        return self.frames[-1]

    def run(self) -> Commit | Failed:
        """Run to the end, in place."""
        self.attempt()
        while isinstance(self.frames[-1], Ask | Park):
            self.step()
        last = self.frames[-1]
        assert isinstance(last, Commit | Failed)
        return last

    def _record(self, entry: Entry) -> None:
        assert entry.position == len(self.journal), "positions count up without a gap"
        self.journal[entry.position] = Recorded(
            entry.branch, entry.position, entry.kind, entry.body, "", b"", self.clock, entry.state
        )


def problem_of(frame: Frame) -> dict[str, Any]:
    """The Problem of a Failed."""
    assert isinstance(frame, Failed), frame
    found: dict[str, Any] = orjson.loads(frame.problem)
    return found
