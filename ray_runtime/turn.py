"""The turn engine: drives one handler from Run to Park, Commit or Failed.

The handler is a coroutine that only this engine resumes, one step at a time, with no event loop to
be had. What it yields is a promise of its own turn, or the turn ends. An answer that the journal
holds is given at once; an effect is asked of the gate; an await parks the turn, which goes on in
place when the answer comes while the coroutine lives, and by replay when it does not: the handler
can not tell. What a handler gathers goes on as branches; the turn waits when all of them do, and
the gate hears after each answer where they stand. A turn ends exactly once, with one frame, and what
it buffered and did not commit is gone with it.
"""

import contextlib
import math
import time
from collections.abc import Callable
from typing import Any, Literal

import orjson
from pydantic import BaseModel

from ray_runtime.arguments import json_bytes
from ray_runtime.awaits import EffectPromise, Promise
from ray_runtime.branching import Branch, Branches, Branching
from ray_runtime.code import Loaded
from ray_runtime.connection import TooLargeError
from ray_runtime.journal import Answer, Journal
from ray_runtime.problems import Unanswered, handler_error, problem
from ray_runtime.sdk import Turn
from ray_runtime.state import HASHED_BYTES_MAX, state_digest, state_mark
from ray_runtime.stepping import Steps
from ray_runtime.workspace import Workspace
from schemas import faults
from schemas.base import canonical
from schemas.branches import HELD, ROOT
from schemas.envelope import Envelope
from schemas.frames import FRAME_BYTES_MAX, Frame
from schemas.problem import Problem, Refusal
from schemas.wire import Ask, Commit, Failed, Park, Receipt, Recorded, Resolved, Run

Phase = Literal["new", "effect", "parked", "over"]


class Activation:
    """One attempt at one turn. `send` takes its frames; `ended` is the last one of a turn that commits.

    What a turn that is `kept` was told can be handed back when it has ended. One that is `sealed` has ended before, and
    is run again from such a journal: it does nothing new.
    """

    def __init__(
        self,
        run: Run,
        state: bytes,
        *,
        state_bytes_max: int,
        send: Callable[[Frame], None],
        workspace: Workspace | None = None,
        kept: bool = False,
        sealed: bool = False,
    ) -> None:
        self.run = run
        self.phase: Phase = "new"
        self.ended: Commit | None = None
        self.before = state
        self.kept = kept
        self.longest_s = 0.0  # of a turn that is kept: of the steps between two frames
        self._state_bytes_max = state_bytes_max
        self._send = send
        self._workspace = workspace
        self._steps = Steps()
        self._journal = Journal(
            run.journal,
            turn_id=run.turn_id,
            started_at=run.started_at,
            entries_max=run.effects_max,
            bytes_max=run.journal_bytes_max,
            kept=kept,
            sealed=sealed,
        )
        self._branches = Branches(self._journal)
        self._dump: Callable[[], bytes] = lambda: b""
        self._root = ""
        self._state_version = 0
        self._state_bytes = len(state)
        self._active_since = 0.0
        self._left_s = min(run.turn_s_max, run.turn_s_left)  # from then on

    def start(self, loaded: Loaded | Problem) -> None:
        """Run the handler to its first wait, or to its end."""
        if isinstance(loaded, Problem):
            self._fail(loaded, retry=False)
            return
        self.begin(loaded)
        self._advance()

    def begin(self, loaded: Loaded) -> None:
        """Stand before the handler's first step."""
        self._root = loaded.root
        self._state_version = loaded.codec.version
        self._active_since = time.monotonic()
        self._branches.begin(self._handle(loaded))
        faults.at("host.handler.began")

    def receipt(self, frame: Receipt) -> None:
        """What came of an effect that the handler waits for; or that it waits for an operator."""
        place = frame.branch, frame.position
        if not self._hears(self._branches.performs(place)):
            return
        if frame.outcome == HELD:
            self._branches.held(place)
        else:
            self._branches.came(place, Answer(frame.outcome, frame.result, frame.at))
        self._goes_on()

    def resolved(self, frame: Resolved) -> None:
        """The answer to an await that the turn waits for."""
        place = frame.branch, frame.position
        if self._hears(place in self._branches.durable()):
            self._branches.came(place, Answer(frame.outcome, frame.result, frame.at))
            self._goes_on(frame.turn_s_left)

    def _hears(self, awaited: bool) -> bool:
        """Whether there is anybody to tell; where branches stand is said after each answer, needed or not."""
        self._branches.heard += 1
        return self.phase in ("effect", "parked") and (awaited or not self._branches.alone)

    def _goes_on(self, left_s: float = math.inf) -> None:
        if self.phase == "parked":
            self._active_since, self._left_s = time.monotonic(), min(self._left_s, left_s)
        faults.at("host.handler.goes_on")
        self._advance()

    def drop(self) -> None:
        """Forget the turn: nothing is sent for it any more."""
        if self.phase != "over":
            self.phase = "over"
            self._close()

    # The handler, as one coroutine

    async def _handle(self, loaded: Loaded) -> tuple[bytes, bytes]:
        """State in, hook, state and reply out: all of it is user's code, so all of it is stepped."""
        run = self.run
        agent = loaded.agent.__new__(loaded.agent)
        agent.namespace, agent.name = run.namespace, run.name
        agent.config = orjson.loads(run.config) if run.config else {}
        agent.state = loaded.codec.load(self.before, self.run.state_version or None)
        agent.__init__()  # type: ignore[misc]
        self._dump = lambda: loaded.codec.dump(agent.state)
        folder = self._workspace.path if self._workspace is not None else None
        about = {"turn_id": run.turn_id, "namespace": run.namespace, "name": run.name, "trigger": run.trigger}
        turn = Turn(self._journal, **about, workspace=folder)
        envelope = Envelope.model_validate_json(run.message)
        reply = None
        if run.trigger == "message":
            reply = await agent.on_message(turn, envelope)
        elif run.trigger == "reply":
            await agent.on_reply(turn, envelope)
        elif run.trigger == "timer":
            await agent.on_timer(turn, envelope)
        elif run.trigger == "batch":
            await agent.on_batch(turn, [Envelope.model_validate(it) for it in envelope.data])
        elif run.version == 0:
            await agent.on_start(turn)
        state = loaded.codec.dump(agent.state)
        loaded.codec.load(state)
        return state, _reply(reply)

    def journal(self) -> list[Recorded] | None:
        """Of a turn that is kept and has ended: all that it did and was told; None if that is too much."""
        return self._journal.whole()

    # Steps

    def _advance(self) -> None:
        """Step branches until all wait for what is not there yet, or the handler ends."""
        began = time.monotonic()
        while self.step():
            pass
        if self.kept:
            self.longest_s = max(self.longest_s, time.monotonic() - began)

    def step(self) -> bool:
        """Step one branch; whether there is another one to be stepped."""
        if not self._may_go_on():
            return False
        found = self._branches.next()
        if self._journal.fatal is not None:
            return True
        if found is None:
            self._wait()
            return False
        branch, answer = found
        try:
            token = self._step(branch, answer)
        except StopIteration as stop:
            if branch.parent is None:
                self._finish(*stop.value)
                return False
            self._branches.ended(branch, stop.value, None)
        except BaseException as error:  # noqa: BLE001 - the host's turn boundary
            if branch.parent is None or not isinstance(error, Exception):
                self._raised(error)
                return False
            self._branches.ended(branch, None, error)
        else:
            if self._broken(token):
                return False
            self._mark(token)
            self._branches.waits(branch, token)
        return True

    def _step(self, branch: Branch, answer: Answer | None) -> Any:
        self._journal.stepping, self._journal.branch = True, branch.name
        try:
            return self._steps.run(branch.coroutine.send, answer)
        finally:
            self._journal.stepping, self._journal.branch = False, ROOT

    def _mark(self, promise: Promise[Any]) -> None:
        """Hash the state where the handler waits, so that a replay which keeps something else is found out."""
        journal, place = self._journal, promise.place
        if isinstance(promise, Branching) or journal.unmarked(place):
            return
        if isinstance(promise, EffectPromise) and not journal.holds(place) and self._state_bytes > HASHED_BYTES_MAX:
            return
        state = b""
        with contextlib.suppress(Exception):  # user's code; what is no JSON yet may be so at the end of the turn
            state = self._steps.run(self._dump)
            self._state_bytes = len(state)
        journal.mark(place, promise.kind, state_mark(state) if state else "")

    def _may_go_on(self) -> bool:
        """Whether all that was done can be replayed, and the limits of the turn leave room for one more step."""
        if (found := self._steps.violation or self._journal.fatal) is not None:
            self._fail(found, retry=False)
            return False
        most = self.run.turn_s_max
        if time.monotonic() - self._active_since > self._left_s:
            detail = f"the turn was active for more than {most:g} s"
            self._fail(problem("TURN_TIMEOUT", detail, limit="turn_s_max", max=most), retry=False)
            return False
        return True

    def _broken(self, token: Any) -> bool:
        """End the turn if the step did what can not be replayed, or passed a limit."""
        if self._steps.violation is None and not (isinstance(token, Promise) and token.journal is self._journal):
            what = f"the handler awaited {type(token).__name__}" if token is not None else "the handler yielded"
            self._steps.violate(what)
        found = self._steps.violation or self._journal.fatal
        if found is not None:
            self._fail(found, retry=False)
        return found is not None

    def _wait(self) -> None:
        """Ask for what was not asked for yet, and say where the branches stand."""
        faults.at("host.handler.waits")
        if not all(self._ask(effect) for effect in self._branches.unasked()):
            return
        flying = self._branches.on_their_way()
        self.phase = "effect" if flying else "parked"
        if not flying:  # what it was active for stays counted
            self._left_s -= time.monotonic() - self._active_since
        if flying and self._branches.alone:
            return
        run = self.run
        entries = self._journal.take() if not flying or self._journal.has_awaits() else []
        cpu_ns = self._steps.take_cpu_ns() if entries or not flying else 0
        self._say(Park(run.turn_id, run.epoch, entries, cpu_ns, self._branches.durable(), self._branches.heard))

    def _ask(self, effect: EffectPromise) -> bool:
        run, place = self.run, effect.place
        entries = [] if self._journal.holds(place) else self._journal.take()
        return self._say(
            Ask(
                run.turn_id, run.epoch, *place, effect.effect,
                effect.connection, effect.arguments, effect.purpose, entries, self._journal.state_at(place),
            )
        )  # fmt: skip

    def _say(self, frame: Frame) -> bool:
        """Send a frame; a turn that says more than the gate takes has failed."""
        try:
            self._send(frame)
        except TooLargeError as error:
            most = FRAME_BYTES_MAX
            detail = f"the turn says {error.bytes} bytes at once, and {most} are taken: effects, state and files"
            found = problem("LIMIT_REACHED", detail, limit="frame_bytes_max", bytes=error.bytes, max=most)
            self._fail(found, retry=False)
            return False
        return True

    # Ends

    def _finish(self, state: bytes, reply: bytes) -> None:
        faults.at("host.handler.ended")
        found = self._steps.violation or self._journal.fatal or self._journal.leftover() or self._unkept(state, reply)
        if found is not None:
            self._fail(found, retry=False)
            return
        try:
            files, gone = self._workspace.settle() if self._workspace is not None else ([], [])
        except Refusal as refusal:
            self._fail(refusal.problem, retry=False)
            return
        except OSError as error:
            self._fail(problem("INTERNAL", f"the workspace can not be read: {error}", error=str(error)), retry=True)
            return
        run = self.run
        self.phase = "over"
        self.ended = Commit(
            run.turn_id, run.epoch, run.version, state, state_digest(state),
            self._journal.take(), reply, self._steps.take_cpu_ns(), self._state_version, files, gone,
        )  # fmt: skip
        if not self._say(self.ended):
            self.ended = None

    def _unkept(self, state: bytes, reply: bytes) -> Problem | None:
        """What the handler left undone, or let grow, without an exception."""
        if self._journal.over and reply != b"null":
            detail = "the handler returned an answer after turn.continue_as: the last turn answers"
            return problem("HANDLER_ERROR", detail, what="turn.continue_as")
        for promise in self._journal.promises:
            if promise.position < 0:
                return problem("HANDLER_ERROR", f"{promise.said} was never awaited", what=promise.said)
        if len(state) > self._state_bytes_max:
            most = self._state_bytes_max
            detail = f"the state has {len(state)} bytes, and at most {most} are kept"
            return problem("LIMIT_REACHED", detail, limit="state_bytes_max", bytes=len(state), max=most)
        return None

    def _raised(self, error: BaseException) -> None:
        """The handler raised. What the journal made it raise, it will raise again: no retry."""
        found = self._steps.violation or self._journal.fatal
        if found is None and isinstance(error, Refusal):
            found = error.problem
        if found is not None:
            self._fail(found, retry=False)
        elif isinstance(error, Unanswered):
            self._fail(problem("INTERNAL", str(error), error=str(error)), retry=True)
        else:
            self._fail(handler_error(error, self._root), retry=True)

    def _fail(self, found: Problem, *, retry: bool) -> None:
        run = self.run
        self.phase = "over"
        self._close()
        body = canonical(found.model_dump(mode="json"))
        self._say(Failed(run.turn_id, run.epoch, body, retry, self._steps.take_cpu_ns()))

    def _close(self) -> None:
        """End the coroutines. Their `finally` blocks run, and reach nobody: the journal is shut."""
        with contextlib.suppress(BaseException):  # the host's turn boundary: the turn is over already
            self._branches.close(lambda close: self._steps.run(_quietly, close))
        for promise in self._journal.promises:
            if isinstance(promise, Branching) and promise.position < 0:
                promise.close()


def _quietly(close: Callable[[], None]) -> None:
    with contextlib.suppress(BaseException):
        close()


def _reply(value: Any) -> bytes:
    """The answer to whoever asked, as JSON."""
    if value is None:
        return b"null"
    if isinstance(value, BaseModel):
        return canonical(value.model_dump(mode="json"))
    return json_bytes("the return value", value)
