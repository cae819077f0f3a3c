"""Turns that are run again after they have committed, to find code that does not come to the same.

A turn is chosen by its id, so that every attempt at it is. What it did and was told is kept while it lasts, and when it
has committed its handler is run once more from the state before: it is told the same, asks nobody, and sends nothing.
The first difference is told to the gate. All of it is dropped then; a crash loses a replay, and nothing else.

Nobody waits for a replay. It begins when no frame has come for `QUIET_S`, goes one step at a time, from one await to
the next, and stands still when a frame comes, until it is quiet again. A turn is not replayed whose handler once had
the loop for more than `STEP_S_MAX`, that has a workspace (its files are other ones by now), or that is large.
"""

import asyncio
import math
import time
import zlib
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from msgspec.structs import replace

from ray_runtime import divergence
from ray_runtime.code import Loaded
from ray_runtime.turn import Activation
from schemas import faults
from schemas.base import canonical
from schemas.frames import Frame
from schemas.problem import Problem
from schemas.wire import REPLAY, Commit, Diverged, Failed, Run

QUIET_S = 0.02
STEP_S_MAX = 0.02  # for so long a neighbour may have to wait
ACTIVE_S_MAX = 1.0  # of one replay, all steps together
WAITING_S_MAX = 30.0
WAITING_MAX = 16
WAITING_BYTES_MAX = 4_194_304


class Replay:
    """One turn that has committed, on its way once more."""

    def __init__(self, run: Run, before: bytes, ended: Commit, loaded: Loaded) -> None:
        self.turn_id = run.turn_id
        self.weight = len(before) + len(ended.state) + len(run.message)
        self.weight += sum(len(it.body) + len(it.result) for it in run.journal)
        self._ended = ended
        self._loaded = loaded
        self._said: list[Frame] = []
        self._begun = False
        most = WAITING_BYTES_MAX
        self._again = Activation(run, before, state_bytes_max=most, send=self._said.append, sealed=True)

    def step(self) -> bool:
        """Run its handler on to its next await; whether there is more of it."""
        if not self._begun:
            self._begun = True
            self._again.begin(self._loaded)
        return self._again.step()

    def found(self) -> Problem | None:
        """How it differs first; None where it does not, or did not come to its end."""
        last, turn_id = self._said[-1] if self._said else None, self.turn_id
        if isinstance(last, Failed):
            problem = Problem.model_validate_json(last.problem)
            if last.retry and problem.reason == "INTERNAL":  # of the machine, not of the code
                return None
            return problem if problem.reason == "REPLAY_DIVERGED" else divergence.raised(turn_id, problem)
        if not isinstance(last, Commit):
            return None
        if last.state != self._ended.state:
            return divergence.state_at_end(turn_id, self._ended.state, last.state)
        if last.reply != self._ended.reply:
            return divergence.reply_diverged(turn_id, self._ended.reply, last.reply)
        return None

    def drop(self) -> None:
        """Forget it, wherever it is."""
        self._again.drop()


def replay_of(activation: Activation, loaded: Loaded) -> Replay | None:
    """The replay of a kept turn that has sent its commit; None where it is too long, or too much to keep."""
    ended, journal = activation.ended, activation.journal()
    if ended is None or journal is None or activation.longest_s > STEP_S_MAX:
        return None
    run = replace(activation.run, journal=journal, turn_s_max=math.inf, turn_s_left=math.inf, state=b"")
    return Replay(run, activation.before, ended, loaded)


class _Waiting(NamedTuple):
    replay: Replay
    until: float


class Replays:
    """The replays of one host: which turns, and when. `held` is told which turn has the loop, and when none has."""

    def __init__(self, send: Callable[[Frame], None], held: Callable[[str], None]) -> None:
        self.one_in = 0  # none
        self.heard = 0  # frames, so far
        self._seen = -1
        self._send = send
        self._held = held
        self._waiting: deque[_Waiting] = deque()
        self._weight = 0
        self._active_s = 0.0
        self._next: asyncio.TimerHandle | None = None

    def keeps(self, run: Run) -> bool:
        """Whether the turn is one of those that are run again."""
        return self.one_in > 0 and run.workspace is None and zlib.crc32(run.turn_id.encode()) % self.one_in == 0

    def add(self, activation: Activation, loaded: Loaded) -> None:
        """A turn that was kept has sent its commit."""
        replay = replay_of(activation, loaded)
        if replay is None or self._weight + replay.weight > WAITING_BYTES_MAX or len(self._waiting) >= WAITING_MAX:
            return
        self._waiting.append(_Waiting(replay, time.monotonic() + WAITING_S_MAX))
        self._weight += replay.weight
        if self._next is None:
            self._when_quiet()

    def forget(self) -> None:
        """Drop them all."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        while self._waiting:
            self._drop()

    def _when_quiet(self) -> None:
        self._seen = self.heard
        self._next = self._after(QUIET_S, self._look)

    def _after(self, seconds: float, then: Callable[[], None]) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(seconds, then)

    def _look(self) -> None:
        self._next = None
        while self._waiting and self._waiting[0].until < time.monotonic():
            self._drop()
        if not self._waiting:
            return
        if self.heard != self._seen:
            self._when_quiet()
            return
        self._step()
        if self._waiting:
            self._next = self._after(0.0, self._look)

    def _step(self) -> None:
        """One step of the first; where it comes to its end, what was found."""
        replay, began = self._waiting[0].replay, time.monotonic()
        faults.at("host.replay")
        self._held(REPLAY + replay.turn_id)
        try:
            more = replay.step()
        finally:
            self._held("")
        self._active_s += time.monotonic() - began
        if more and self._active_s <= ACTIVE_S_MAX:
            return
        found = None if more else replay.found()
        self._drop()
        if found is not None:
            body = canonical(found.model_dump(mode="json"))
            self._send(Diverged(replay.turn_id, found.metadata["first"], body))

    def _drop(self) -> None:
        replay = self._waiting.popleft().replay
        self._weight -= replay.weight
        self._active_s = 0.0
        replay.drop()
