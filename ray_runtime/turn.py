"""The turn engine: drives one handler from Run to Park, Commit or Failed.

The handler is a coroutine that only this engine resumes, one step at a time, with no event loop to
be had. What it yields is a promise of its own turn, or the turn ends. An answer that the journal
holds is given at once; an effect is asked of the gate; an await parks the turn, which goes on in
place when the answer comes while the coroutine lives, and by replay when it does not: the handler
can not tell. A turn ends exactly once, with one frame, and what it buffered and did not commit is
gone with it.
"""

import contextlib
import time
from collections.abc import Callable
from typing import Any, Literal

import orjson
from pydantic import BaseModel

from ray_runtime.arguments import json_bytes
from ray_runtime.awaits import EffectPromise, Promise
from ray_runtime.code import Loaded
from ray_runtime.gathering import Gathering, came
from ray_runtime.journal import BRANCH, Answer, Journal
from ray_runtime.problems import handler_error, problem
from ray_runtime.sdk import Turn
from ray_runtime.state import state_digest
from ray_runtime.stepping import Steps
from schemas import faults
from schemas.base import canonical
from schemas.envelope import Envelope
from schemas.problem import Problem, Refusal
from schemas.wire import Ask, Commit, Failed, Frame, Park, Receipt, Resolved, Run

Phase = Literal["new", "effect", "parked", "over"]


class Activation:
    """One attempt at one turn. `send` takes its frames; `state` is set once it has committed."""

    def __init__(self, run: Run, state: bytes, *, state_bytes_max: int, send: Callable[[Frame], None]) -> None:
        self.run = run
        self.phase: Phase = "new"
        self.committed: bytes | None = None
        self._state = state
        self._state_bytes_max = state_bytes_max
        self._send = send
        self._steps = Steps()
        self._journal = Journal(
            run.journal, started_at=run.started_at, entries_max=run.effects_max, bytes_max=run.journal_bytes_max
        )
        self._root = ""
        self._coroutine: Any = None
        self._waiting: Promise[Any] | None = None
        self._active_since = 0.0

    def start(self, loaded: Loaded | Problem) -> None:
        """Run the handler to its first wait, or to its end."""
        if isinstance(loaded, Problem):
            self._fail(loaded, retry=False)
            return
        self._root = loaded.root
        self._active_since = time.monotonic()
        self._coroutine = self._handle(loaded)
        faults.at("host.handler.began")
        self._advance(None)

    def receipt(self, frame: Receipt) -> None:
        """What came of the effect that the handler waits for."""
        if self.phase == "effect" and self._waits_at(frame.branch, frame.position):
            self._resume(Answer(frame.outcome, frame.result, frame.at))

    def resolved(self, frame: Resolved) -> None:
        """The answer to the await that the turn is parked on."""
        if self.phase == "parked" and self._waits_at(frame.branch, frame.position):
            self._active_since = time.monotonic()
            self._resume(self._taken(Answer(frame.outcome, frame.result, frame.at)))

    def drop(self) -> None:
        """Forget the turn: nothing is sent for it any more."""
        if self.phase != "over":
            self.phase = "over"
            self._close()

    def _taken(self, answer: Answer) -> Answer:
        """The answer as the journal has it; what the members of a gathering came to goes to their positions."""
        if not isinstance(self._waiting, Gathering):
            return answer
        for position, of_member in came(answer.result):
            self._journal.fill(position, of_member)
        return answer._replace(result=b"null")

    # The handler, as one coroutine

    async def _handle(self, loaded: Loaded) -> tuple[bytes, bytes]:
        """State in, hook, state and reply out: all of it is user's code, so all of it is stepped."""
        run = self.run
        agent = loaded.agent.__new__(loaded.agent)
        agent.namespace, agent.name = run.namespace, run.name
        agent.config = orjson.loads(run.config) if run.config else {}
        agent.state = loaded.codec.load(self._state)
        agent.__init__()  # type: ignore[misc]
        turn = Turn(self._journal, turn_id=run.turn_id, namespace=run.namespace, name=run.name)
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

    # Steps

    def _resume(self, answer: Answer) -> None:
        self._journal.answered(answer)
        faults.at("host.handler.goes_on")
        self._advance(answer)

    def _advance(self, answer: Answer | None) -> None:
        """Step until the handler waits for what is not there yet, or ends."""
        while self._may_go_on():
            try:
                token = self._step(answer)
            except StopIteration as stop:
                self._finish(*stop.value)
                return
            except BaseException as error:  # noqa: BLE001 - the host's turn boundary
                self._raised(error)
                return
            if self._broken(token):
                return
            self._waiting = token
            answer = self._journal.replayed(token.position)
            if answer is None:
                self._wait(token)
                return
            self._journal.answered(answer)

    def _step(self, answer: Answer | None) -> Any:
        self._waiting = None
        self._journal.stepping = True
        try:
            return self._steps.run(self._coroutine.send, answer)
        finally:
            self._journal.stepping = False

    def _may_go_on(self) -> bool:
        """Whether the limits of the turn leave room for one more step."""
        if self._journal.fatal is not None:
            self._fail(self._journal.fatal, retry=False)
            return False
        most = self.run.turn_s_max
        if time.monotonic() - self._active_since > most:
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

    def _wait(self, token: Promise[Any]) -> None:
        faults.at("host.handler.waits")
        run, entries = self.run, self._journal.take()
        if isinstance(token, EffectPromise):
            self.phase = "effect"
            self._send(
                Ask(
                    run.turn_id, run.epoch, BRANCH, token.position, token.effect,
                    token.connection, token.arguments, token.purpose, entries,
                )
            )  # fmt: skip
            return
        self.phase = "parked"
        self._send(Park(run.turn_id, run.epoch, entries, self._steps.take_cpu_ns()))

    def _waits_at(self, branch: str, position: int) -> bool:
        return self._waiting is not None and branch == BRANCH and position == self._waiting.position

    # Ends

    def _finish(self, state: bytes, reply: bytes) -> None:
        faults.at("host.handler.ended")
        found = self._steps.violation or self._journal.fatal or self._journal.leftover() or self._unkept(state)
        if found is not None:
            self._fail(found, retry=False)
            return
        run = self.run
        self.phase = "over"
        self.committed = state
        self._send(
            Commit(
                run.turn_id, run.epoch, run.version, state, state_digest(state),
                self._journal.take(), reply, self._steps.take_cpu_ns(),
            )
        )  # fmt: skip

    def _unkept(self, state: bytes) -> Problem | None:
        """What the handler left undone, or let grow, without an exception."""
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
        else:
            self._fail(handler_error(error, self._root), retry=True)

    def _fail(self, found: Problem, *, retry: bool) -> None:
        run = self.run
        self.phase = "over"
        self._close()
        body = canonical(found.model_dump(mode="json"))
        self._send(Failed(run.turn_id, run.epoch, body, retry, self._steps.take_cpu_ns()))

    def _close(self) -> None:
        """End the coroutine. Its `finally` blocks run, and reach nobody: the journal is shut."""
        if self._coroutine is None:
            return
        with contextlib.suppress(BaseException):  # the host's turn boundary: the turn is over already
            self._steps.run(self._coroutine.close)


def _reply(value: Any) -> bytes:
    """The answer to whoever asked, as JSON."""
    if value is None:
        return b"null"
    if isinstance(value, BaseModel):
        return canonical(value.model_dump(mode="json"))
    return json_bytes("the return value", value)
