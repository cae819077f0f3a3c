"""The plane's side of the gate: calls that are answered once, over a connection that comes back.

A call that was on its way when the gate died is made again when that changes nothing (publishes carry
their id, controls are level-triggered); a write is not, and says IN_DOUBT: the caller reads before it
writes again. A call made while the gate is away waits a little, and then is refused as NOT_READY.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from controlplane.effects.wireio import Wire
from controlplane.resources.problems import problem, refuse
from controlplane.store.direct import refused
from schemas import frames, wire
from schemas.posting import PLAIN, Placed
from schemas.problem import Problem, Refusal

AWAY_S_MAX = 5.0
RECONNECT_S = 0.02
CALL_S_MAX = 30.0


class GateClient:
    """Implements `schemas.ports.GatePort`. `moved` is called on every Moved frame."""

    def __init__(self, socket: Path, key: str, moved: Callable[[], None]) -> None:
        self._socket = socket
        self._key = key
        self._moved = moved
        self._calls: dict[int, asyncio.Future[frames.Done]] = {}
        self._next = 0
        self._wire: Wire | None = None
        self._up = asyncio.Event()
        self._gone = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None
        self.trouble = ""
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}

    @property
    def connected(self) -> bool:
        return self._up.is_set()

    async def up(self) -> None:
        """Wait until the gate is there, for as long as it takes."""
        await self._up.wait()

    def connect(self) -> None:
        """Keep a connection, from now on."""
        self._keeping = asyncio.get_running_loop().create_task(self._keep())

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            gone = self._gone = asyncio.Event()
            with contextlib.suppress(OSError):
                _, wire = await loop.create_unix_connection(self._wired, str(self._socket))
                wire.send(frames.PlaneHello(os.getpid(), self._key))
                self._wire = wire
                self._up.set()
                self._moved()
                await gone.wait()
                self._lost()
            await asyncio.sleep(RECONNECT_S)

    def _wired(self) -> Wire:
        gone = self._gone
        return Wire(wire.ToPlane, self._received, lambda _: gone.set())

    def _lost(self) -> None:
        self._up.clear()
        self._wire, self.trouble = None, ""
        calls, self._calls = self._calls, {}
        for answer in calls.values():
            if not answer.done():
                answer.set_exception(ConnectionResetError())

    def _received(self, _wire: Wire, frame: Any) -> None:
        if isinstance(frame, frames.Done):
            answer = self._calls.pop(frame.call, None)
            if answer is not None and not answer.done():
                answer.set_result(frame)
            return
        self.trouble = frame.trouble
        for await_id in frame.awaits:
            for waiter in self._waiting.pop(await_id, ()):
                if not waiter.done():
                    waiter.set_result(None)
        self._moved()

    async def close(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        if self._wire is not None:
            self._wire.close()

    # The port

    async def write(self, statements: list[tuple[str, list[Any], int]]) -> bool:
        """False is a conflict, and then nothing was changed."""
        rows = [frames.Statement(str(text), list(params), expect) for text, params, expect in statements]
        try:
            done = await self._call(lambda call: frames.Write(call, rows))
        except ConnectionResetError:
            found = problem("IN_DOUBT", "the gate went away before it said whether this was written")
            raise Refusal(found.model_copy(update={"changed": "unknown", "retry_after_s": 1.0})) from None
        return done.outcome == "ok"

    async def publish(
        self,
        namespace: str,
        name: str,
        message_id: str,
        body: bytes,
        ask_until: float,
        principal: str,
        chain: bytes = b"",
        placed: Placed = PLAIN,
    ) -> dict[str, Any]:
        about = (namespace, name, message_id, body, ask_until, principal, chain, placed)
        return await self._body(lambda call: frames.Publish(call, *about))

    async def publish_channel(
        self,
        namespace: str,
        name: str,
        message_id: str,
        body: bytes,
        placed: Placed = PLAIN,
        principal: str = "",
        first_use: str = "",
        invitation: str = "",
    ) -> dict[str, Any]:
        about = (namespace, name, message_id, body, placed, principal, first_use, invitation)
        return await self._body(lambda call: frames.PublishChannel(call, *about))

    async def post(self, namespace: str, name: str, headers: dict[str, str], body: bytes) -> dict[str, Any]:
        return await self._body(lambda call: frames.Post(call, namespace, name, headers, body))

    async def control(self, verb: str, agent: str, argument: dict[str, Any]) -> dict[str, Any]:
        return await self._body(lambda call: frames.Control(call, verb, agent, orjson.dumps(argument)))

    async def answered(self, await_id: str, timeout_s: float) -> None:
        """Return when the gate says that the await was resolved, or when the time is over."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters = self._waiting.setdefault(await_id, set())
        waiters.add(waiter)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await waiter
        finally:
            waiters.discard(waiter)
            if not waiters and self._waiting.get(await_id) is waiters:
                del self._waiting[await_id]

    async def _body(self, frame: Callable[[int], frames.Frame]) -> dict[str, Any]:
        """The answer to a call that may be made again."""
        give_up_at = time.monotonic() + AWAY_S_MAX
        while True:
            try:
                body: dict[str, Any] = orjson.loads((await self._call(frame)).body)
            except ConnectionResetError:
                if time.monotonic() > give_up_at:
                    raise _away("the gate went away before it answered; it is being started again") from None
            else:
                return body

    async def _call(self, frame: Callable[[int], frames.Frame]) -> frames.Done:
        wire = await self._there()
        self._next += 1
        call = self._next
        answer: asyncio.Future[frames.Done] = asyncio.get_running_loop().create_future()
        self._calls[call] = answer
        wire.send(frame(call))
        try:
            async with asyncio.timeout(CALL_S_MAX):
                done = await answer
        except TimeoutError:
            raise _away(f"the gate did not answer within {CALL_S_MAX:g} s") from None
        finally:
            self._calls.pop(call, None)
        if done.outcome == "refused":
            raise Refusal(Problem.model_validate_json(done.body))
        if done.outcome == "error":
            raise refused(done.body.decode())
        return done

    async def _there(self) -> Wire:
        try:
            async with asyncio.timeout(AWAY_S_MAX):
                await self._up.wait()
        except TimeoutError:
            raise _away("the gate is away; it is being started again") from None
        assert self._wire is not None
        return self._wire


def _away(detail: str) -> Refusal:
    return refuse("NOT_READY", detail, retry_after_s=1.0)
