"""Sending one effect: as often as is safe, for as long as it may take, and what came of it.

What could not be sent at all is tried again, and so is what is in doubt where the far side promises to
do it once; tenacity waits in between, and nothing is sent after `send_by`. What is not answered in time
and must not be sent again is in doubt; its answer is listened for as long again, and settles it. In doubt is
also what an effector breaks at, once it may have sent something: only what says so itself has failed.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import BaseModel

from controlplane.economy.meters import Who
from controlplane.effects.connections import Connections
from controlplane.protocols.scrubbing import encodable, scrubbed, shortened
from controlplane.resources.problems import problem, refuse
from schemas import faults
from schemas.ports import Doubt, EffectCall, Effector, Link, Unreached, Used
from schemas.problem import Refusal

if TYPE_CHECKING:
    from controlplane.effects.telling import Telling

log = logging.getLogger("steward.gate")
RESULT_BYTES_MAX = 2 * 1_048_576
ATTEMPTS_MAX = 3
WHY_CHARS_MAX = 1000
WAIT_FIRST_S, WAIT_MOST_S = 0.05, 2.0


@dataclass
class Act:
    """What is to be done, with what, over which connection."""

    effector: Effector
    arguments: BaseModel
    declared: Link | None
    call: EffectCall = field(default_factory=lambda: EffectCall(""))
    unsent: bool = False  # whether its intent is certainly one of which nothing was sent
    age_s: float = 0.0  # how long ago it was first written ahead
    used: dict[str, float] = field(default_factory=dict)  # what its effector says that it took
    telling: "Telling | None" = None  # of its result, while that comes
    who: Who | None = None  # whose it is, whatever that agent does by the time it is over
    judged: dict[str, int] = field(default_factory=dict)  # by which magnitudes, if it was previewed

    @property
    def timeout_s(self) -> float:
        return self.effector.timeout_s if self.declared is None else self.declared.spec.limits.timeout_s

    @property
    def repeats_for_s(self) -> float:
        return self.effector.repeats_for_s(self.arguments, self.declared.spec if self.declared else None)

    @property
    def secret(self) -> str:
        return self.call.link.secret if self.call.link is not None else ""


async def send(act: Act, may: Callable[[], None], doubted: Callable[[str], None]) -> bytes:
    """The effector's answer as JSON. `may` raises when it must not be sent (any more)."""
    again = act.repeats_for_s > 0 and not act.effector.reads_only  # what only reads has failed, and may have cost
    safe = (Unreached, Doubt) if again else (Unreached,)
    began = asyncio.get_running_loop().time() - act.age_s
    try:
        _require_may(may, None)
        return await _once(act, doubted)
    except _Ended as ended:
        raise ended.known from None
    except safe as error:
        return await _again(act, may, doubted, safe, error, began)


async def _again(
    act: Act,
    may: Callable[[], None],
    doubted: Callable[[str], None],
    safe: tuple[type[Exception], ...],
    first: Exception,
    began: float,
) -> bytes:
    """After what the first attempt came to, by which tenacity begins."""
    from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

    retrying = AsyncRetrying(
        retry=retry_if_exception_type(safe),
        stop=stop_after_attempt(ATTEMPTS_MAX),
        wait=wait_exponential_jitter(multiplier=WAIT_FIRST_S, max=WAIT_MOST_S, jitter=WAIT_FIRST_S),
        reraise=True,
    )
    last = first
    loop = asyncio.get_running_loop()
    try:
        async for attempt in retrying:
            with attempt:
                if attempt.retry_state.attempt_number == 1:
                    raise first
                if isinstance(last, Doubt) and loop.time() - began + act.timeout_s >= act.repeats_for_s:
                    raise _Ended(last)  # by its latest moment the far side may have forgotten the key
                _require_may(may, last)
                try:
                    return await _once(act, doubted)
                except safe as error:
                    last = error
                    raise
    except _Ended as ended:
        raise ended.known from None
    raise AssertionError("an attempt answers or raises")


class Unsent(Exception):  # noqa: N818 - a state: the host was lost before the effect was sent; its successor asks again
    """Nothing was sent."""


class _Ended(Exception):  # noqa: N818 - wraps what is known
    """There is no time for one more attempt; `known` is what the last one came to."""

    def __init__(self, known: Exception) -> None:
        super().__init__(str(known))
        self.known = known


def _require_may(may: Callable[[], None], last: Exception | None) -> None:
    """Where one more attempt is not allowed, what the last one came to stands."""
    try:
        may()
    except Unsent:
        raise _Ended(last) if isinstance(last, Doubt) else Unsent from None
    except Refusal as refusal:
        raise _Ended(last or refusal) from None


async def _once(act: Act, doubted: Callable[[str], None]) -> bytes:
    faults.at("gate.effect.sending")
    call = replace(act.call, count=act.used.update)
    sending = asyncio.ensure_future(act.effector.execute(act.arguments, call))
    late = f"did not answer within {act.timeout_s:g} s"
    try:
        done, _ = await asyncio.wait((sending,), timeout=act.timeout_s)
        if not done and act.repeats_for_s <= 0:
            doubted(late)
            done, _ = await asyncio.wait((sending,), timeout=act.timeout_s)
        if not done:
            raise Doubt(late)
        _count(sending, act)
        told = _told(sending, act.secret)
        faults.at("gate.effect.sent")
        return told
    finally:
        if not sending.done():
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


def _count(sending: "asyncio.Future[Any]", act: Act) -> None:
    """What it took is known, whether its answer can be kept or not."""
    if not sending.cancelled() and sending.exception() is None and isinstance(answered := sending.result(), Used):
        act.used = answered.meters


def _told(sending: "asyncio.Future[Any]", secret: str) -> bytes:
    """The answer as it is kept. An effector that breaks, and an answer that can not be kept, say nothing of
    what was done."""
    if sending.cancelled():
        raise Doubt("was cancelled")
    error = sending.exception()
    if error is not None and not isinstance(error, Refusal | Unreached | Doubt):
        raise Doubt(f"broke: {type(error).__name__}: {error}") from error
    try:
        told: bytes = orjson.dumps(scrubbed(_bare(sending.result()), secret))
    except (orjson.JSONEncodeError, RecursionError) as error:
        raise Doubt(f"answered what is no JSON: {error}") from error
    if len(told) > RESULT_BYTES_MAX:
        raise Doubt(f"answered {len(told)} bytes, {RESULT_BYTES_MAX} at most")
    return told


def _bare(answered: Any) -> Any:
    return answered.result if isinstance(answered, Used) else answered


def doubt_of(why: str, act: Act) -> str:
    """What may be said of a doubt."""
    return shortened(encodable(why), WHY_CHARS_MAX, act.secret)


def receipt_of(task: "asyncio.Task[Any]", act: Act) -> tuple[str, bytes]:
    """What came of it, as the receipt says it."""
    error = task.exception()
    if error is None:
        return "succeeded", task.result()
    try:
        return "failed", _failure(error, act)
    except Exception as unsayable:  # noqa: BLE001 - strangers raise what they like, and a receipt there must be
        name, kind = act.effector.name, type(error).__name__
        log.warning("what %s failed of can not be said: %s", name, type(unsayable).__name__)
        found = problem("EFFECT_FAILED", f"{name} failed, and says nothing that can be kept", effect=name, error=kind)
        return "failed", orjson.dumps(found.model_dump(mode="json"))


def _failure(error: BaseException, act: Act) -> bytes:
    """The Problem that it came to."""
    if isinstance(error, Refusal):
        found = error.problem
    else:
        name, kind = act.effector.name, type(error).__name__
        known = isinstance(error, Doubt | Unreached)
        detail = doubt_of(f"{name} {error}" if known else f"{name}: {kind}: {error}", act)
        found = problem("EFFECT_FAILED", detail, effect=name, error=kind)
    failure: bytes = orjson.dumps(scrubbed(found.model_dump(mode="json"), act.secret))
    return failure


def too_late(act: Act) -> Refusal:
    """It had no place to be sent in before its time was over."""
    detail = f"{act.effector.name} had no place for it before its send_by; it was not sent"
    return refuse("EFFECT_FAILED", detail, effect=act.effector.name)


@contextlib.asynccontextmanager
async def place(
    act: Act, connections: Connections, rooms: Mapping[str, asyncio.Semaphore], send_by: float
) -> AsyncIterator[None]:
    """Room to send in: of the connection, or of the effector where there is none."""
    if act.declared is None:
        async with rooms[act.effector.name]:
            yield
        return
    async with contextlib.AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(connections.place(act.declared, send_by))
        except TimeoutError:
            raise too_late(act) from None
        yield
