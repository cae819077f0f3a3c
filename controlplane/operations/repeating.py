"""One answer for one request id: rule O4, as a reservation that becomes the answer.

A row is inserted before the handler runs, so that of two calls with one id exactly one executes; the
other waits a moment for the answer, then is told to come back. The row keeps the digest of the
input: other input under the id is REQUEST_ID_REUSED. Ids are a caller's own, which is a principal with its reach, so
that no token is answered what another one of its name was. An accepted answer is kept for 7 days, without
a token in it. A refusal frees the id. An unfinished answer (an ask that ran out of patience, a call
that was cancelled, a plane that died) leaves the reservation to lapse: then the same input may
execute again, which handlers make safe by deriving their ids from the request id.
"""

from dataclasses import dataclass, field

import anyio
from pydantic import BaseModel
from sqlmodel import Session, select

from controlplane.resources.operation import Operation
from controlplane.resources.problems import refuse
from controlplane.store.store import Store
from controlplane.store.tables import AcceptedRow
from controlplane.store.unit import Unit
from schemas.base import digest
from schemas.calls import Answer, Imperative
from schemas.ports import Clock, Handler
from schemas.principal import Call
from schemas.problem import Refusal

KEPT_S = 7 * 86_400.0
EXECUTION_S_MAX = 30.0  # on top of what the input itself allows
PATIENCE_S = 2.0
POLL_S = 0.02

RESERVE = """INSERT INTO accepted (principal, operation, request_id, input_digest, output, expires_at)
VALUES (?, ?, ?, ?, NULL, ?) ON CONFLICT (principal, operation, request_id) DO NOTHING"""
TAKE_OVER = """UPDATE accepted SET input_digest = ?, output = NULL, expires_at = ?
WHERE principal = ? AND operation = ? AND request_id = ? AND expires_at = ?"""
KEEP = """UPDATE accepted SET output = ?, expires_at = ?
WHERE principal = ? AND operation = ? AND request_id = ? AND output IS NULL AND expires_at = ?"""
LAPSE = """UPDATE accepted SET expires_at = ?
WHERE principal = ? AND operation = ? AND request_id = ? AND output IS NULL AND expires_at = ?"""
FREE = """DELETE FROM accepted
WHERE principal = ? AND operation = ? AND request_id = ? AND output IS NULL AND expires_at = ?"""
LAPSE_ALL = "UPDATE accepted SET expires_at = ? WHERE output IS NULL AND expires_at > ?"
SWEEP = "DELETE FROM accepted WHERE expires_at < ? AND (output IS NOT NULL OR expires_at < ?)"


@dataclass(frozen=True)
class Repeats:
    """Answers calls that carry a request id."""

    store: Store
    clock: Clock
    executing: set[tuple[str, str, str]] = field(default_factory=set)

    async def answer(self, call: Call, operation: Operation, given: Imperative, handler: Handler) -> BaseModel:
        """Execute the call, or give the answer that it got before."""
        asked = given.model_dump(mode="json", exclude={"request_id", "dry_run", "timeout_s"})  # patience is no input
        input_digest = digest(asked)
        if call.dry_run:
            await self._known(call, operation, input_digest)
            return await handler(call, given)
        held_until = self.clock() + EXECUTION_S_MAX + getattr(given, "timeout_s", 0.0)
        before = await self._reserved(call, operation, input_digest, held_until)
        if before is not None:
            return before
        self.executing.add(_key(call))
        try:
            return await self._executed(call, given, handler, held_until)
        finally:
            self.executing.discard(_key(call))

    async def _reserved(
        self, call: Call, operation: Operation, input_digest: str, held_until: float
    ) -> BaseModel | None:
        """None once the id is ours; else the answer of the call that had it first."""
        key = _key(call)
        give_up_at = anyio.current_time() + PATIENCE_S
        while True:
            if await self.store.write(Unit().raw(RESERVE, [*key, input_digest, held_until], expect=1)):
                return None
            row = await self._row(call)
            if row is None:
                continue
            lapsed = row.input_digest == input_digest and _lapsed(row, self.clock())
            if key not in self.executing and (lapsed or _forgotten(row, self.clock())):
                taken = Unit().raw(TAKE_OVER, [input_digest, held_until, *key, row.expires_at], expect=1)
                if await self.store.write(taken):
                    return None
                continue
            if (answer := _answer(call, operation, row, input_digest)) is not None:
                return answer
            if anyio.current_time() > give_up_at:
                detail = f"{call.operation} with request id {call.request_id} is still being executed"
                raise refuse(
                    "CONFLICT", detail, retry_after_s=1.0, operation=call.operation, request_id=call.request_id
                )
            await anyio.sleep(POLL_S)

    async def _executed(self, call: Call, given: Imperative, handler: Handler, held_until: float) -> BaseModel:
        """Run the handler; keep what it answers, free the id when it refuses, let it lapse otherwise."""
        key = _key(call)
        end = Unit().raw(LAPSE, [self.clock(), *key, held_until])
        try:
            output = await handler(call, given)
            if not (isinstance(output, Answer) and not output.answered):
                kept = _without_token(output).model_dump_json()
                end = Unit().raw(KEEP, [kept, self.clock() + KEPT_S, *key, held_until])
            return output
        except Refusal:
            end = Unit().raw(FREE, [*key, held_until])
            raise
        finally:
            with anyio.move_on_after(EXECUTION_S_MAX, shield=True):
                await self._ended(end)

    async def _ended(self, end: Unit) -> None:
        """The operation's own outcome stands, even when its record can not be written now."""
        try:
            await self.store.write(end)
        except Refusal as refusal:
            if refusal.problem.reason not in ("NOT_READY", "STORAGE_FULL", "IN_DOUBT"):
                raise

    async def _known(self, call: Call, operation: Operation, input_digest: str) -> None:
        row = await self._row(call)
        if row is not None and not _forgotten(row, self.clock()):
            _answer(call, operation, row, input_digest)

    async def _row(self, call: Call) -> AcceptedRow | None:
        def query(session: Session) -> AcceptedRow | None:
            principal, operation, request_id = _key(call)
            return session.exec(
                select(AcceptedRow).where(
                    AcceptedRow.principal == principal,
                    AcceptedRow.operation == operation,
                    AcceptedRow.request_id == request_id,
                )
            ).first()

        return await self.store.read(query)


def lapse_all(now: float) -> Unit:
    """A plane that starts: what the one before it was executing may be asked again at once."""
    return Unit().raw(LAPSE_ALL, [now, now])


def sweep(now: float) -> Unit:
    """Forget what is past its time."""
    return Unit().raw(SWEEP, [now, now - KEPT_S])


def _key(call: Call) -> tuple[str, str, str]:
    return call.principal.identity, call.operation, call.request_id or ""


def _lapsed(row: AcceptedRow, now: float) -> bool:
    return row.output is None and row.expires_at <= now


def _forgotten(row: AcceptedRow, now: float) -> bool:
    return row.expires_at <= (now - KEPT_S if row.output is None else now)


def _answer(call: Call, operation: Operation, row: AcceptedRow, input_digest: str) -> BaseModel | None:
    """The kept answer; None while there is none; raises REQUEST_ID_REUSED for other input."""
    if row.input_digest != input_digest:
        detail = f"the request id {call.request_id} was used for {call.operation} with other input; take a new one"
        raise refuse(
            "REQUEST_ID_REUSED", detail, field="/request_id", request_id=call.request_id, operation=call.operation
        )
    return None if row.output is None else operation.output.model_validate_json(row.output)


def _without_token(output: BaseModel) -> BaseModel:
    return output.model_copy(update={"token": None}) if "token" in type(output).model_fields else output
