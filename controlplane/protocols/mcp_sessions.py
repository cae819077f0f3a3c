"""Sessions with MCP servers: one for each connection, kept while it is used, shared by all its agents.

A session is a task of its own that opens the client, lists the tools, and listens for changes of that list, in both
eras of the protocol (2025-11-25: notifications; 2026-07-28: `subscriptions/listen`). It ends when its connection has
changed or gone, when its secret has, when nobody used it for a while, or when it breaks; the next use opens another,
after a pause that grows while that fails.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import httpx2
import mcp_types as types
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost
from tenacity import AsyncRetrying, RetryCallState, stop_after_attempt, wait_exponential_jitter

from controlplane import VERSION
from controlplane.protocols.http import secret_headers
from controlplane.protocols.mcp_allowed import Startable
from controlplane.protocols.mcp_http import FLIGHT, Checked, Flight
from controlplane.protocols.mcp_process import Said, process
from controlplane.protocols.mcp_tools import offered
from controlplane.protocols.scrubbing import scrubbed, shortened
from controlplane.resources.problems import refuse
from schemas.mcp_connection import STDIO, McpConnection
from schemas.offers import Offered
from schemas.ports import Link, Unreached
from schemas.problem import Refusal

for _name in ("mcp", "client", "httpx2"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)  # they log what far sides say
SESSIONS_MAX = 64
IDLE_S = 300.0
FRESH_S = 60.0  # for how long a list of tools is believed, of a server that may not say that it has changed
TOOLS_MAX = 500
TOOLS_BYTES_MAX = 4 * 1_048_576
PAGES_MAX = 50
ATTEMPTS_MAX = 2
PAUSE_FIRST_S, PAUSE_MOST_S = 0.2, 30.0
WAITED_FOR_S = 2.0
SHOWN_CHARS_MAX = 300
ENDS_WITHIN_S = 1.0
_pause = wait_exponential_jitter(multiplier=PAUSE_FIRST_S, max=PAUSE_MOST_S, jitter=PAUSE_FIRST_S)


def _already() -> asyncio.Event:
    """An event that has been."""
    event = asyncio.Event()
    event.set()
    return event


@dataclass(eq=False)
class Session:
    """One open session: its client, and what the server offers."""

    client: Client
    said: Said
    secret: str = field(repr=False)
    tools: dict[str, Offered] = field(default_factory=dict)
    kept: dict[str, Offered] | None = None  # which of them are pinned
    listed_at: float = 0.0
    used_at: float = 0.0
    in_use: int = 0
    unused: asyncio.Event = field(default_factory=_already)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def changed(self) -> None:
        """The server says that its tools have changed: they are listed before the next use."""
        self.listed_at = 0.0

    async def list(self) -> None:
        """Read what is offered, all pages of it; raises a Refusal when that is more than is kept."""
        began, found, cursor, size = monotonic(), dict[str, Offered](), None, 0
        for _ in range(PAGES_MAX):
            page = await self.client.list_tools(cursor=cursor, cache_mode="bypass")
            found |= {it.name: it for it in (offered(tool, self.secret) for tool in page.tools)}
            cursor = page.next_cursor
            size += sum(len(it.model_dump_json()) for it in page.tools)
            if len(found) > TOOLS_MAX or size > TOOLS_BYTES_MAX:
                break
            if cursor is None:
                self.tools, self.listed_at = found, began
                return
        detail = f"the server offers more than {TOOLS_MAX} tools, or more than {TOOLS_BYTES_MAX} bytes of them"
        raise refuse("LIMIT_REACHED", detail, limit="tools", max=TOOLS_MAX, bytes_max=TOOLS_BYTES_MAX)


@dataclass(eq=False)
class _Kept:
    """The session of one connection, or how often it could not be opened."""

    key: tuple[Any, ...] = field(repr=False)
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)
    said: Said = field(default_factory=Said)
    session: Session | None = None
    task: "asyncio.Task[None] | None" = None
    failures: int = 0
    again_at: float = 0.0
    why: str = ""


class Sessions:
    """The sessions of this gate; `startable` says which processes may be started for them."""

    def __init__(self, startable: Startable) -> None:
        self._startable = startable
        self._kept: dict[str, _Kept] = {}
        self._retiring: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def using(self, link: Link, *, fresh: bool = False) -> AsyncIterator[Session]:
        """The connection's session, and a list of its tools that is believed, or `fresh`.

        Raises Unreached where there is none to be had in half of the connection's time: the rest is for a call.
        """
        try:
            async with asyncio.timeout(link.spec.limits.timeout_s / 2) as bound:
                session = await self._open(link, bound, fresh=fresh)
        except TimeoutError:
            raise Unreached(f"{link.name} can not be opened: it did not answer in time{self._said(link)}") from None
        session.in_use += 1
        session.unused.clear()
        try:
            yield session
        finally:
            session.in_use -= 1
            if not session.in_use:
                session.unused.set()
            session.used_at = monotonic()

    def broken(self, link: Link) -> None:
        """What was heard over the session says that it is of no use any more."""
        if (kept := self._kept.get(link.uid)) is not None:
            self._retire(kept)

    def _retire(self, kept: _Kept) -> None:
        """Nobody begins anything over the session any more; it ends when what is on its way over it has ended."""
        session, task = kept.session, kept.task
        kept.session = kept.task = None
        if task is not None:
            ending = asyncio.get_running_loop().create_task(_ended_when_unused(session, task))
            self._retiring.add(ending)
            ending.add_done_callback(self._retiring.discard)

    def _said(self, link: Link) -> str:
        """The end of what a program said of itself."""
        kept = self._kept.get(link.uid)
        said = "" if kept is None else scrubbed(kept.said.text, link.secret)[-SHOWN_CHARS_MAX:].strip()
        return f"; it said: {said}" if said else ""

    async def keep(self, still: Callable[[str], int | None]) -> None:
        """Close what nobody uses, and what has another generation by now; None is a connection that is gone."""
        now = monotonic()
        for uid, kept in list(self._kept.items()):
            session, generation = kept.session, still(uid)
            idle = session is None or (not session.in_use and now - session.used_at > IDLE_S)
            if generation is None and session is not None:
                session.over.set()  # at once, whatever is on its way over it
            if generation != kept.key[0] or (idle and kept.again_at < now and not kept.opening.locked()):
                self._drop(uid)

    def _drop(self, uid: str) -> None:
        if (kept := self._kept.pop(uid, None)) is not None:
            self._retire(kept)

    async def _open(self, link: Link, bound: asyncio.Timeout, *, fresh: bool) -> Session:
        key = (link.generation, link.secret)
        kept = self._kept.get(link.uid)
        if kept is None or kept.key != key:
            self._drop(link.uid)
            self._make_room()
            kept = self._kept.setdefault(link.uid, _Kept(key))
        async with kept.opening:
            session = kept.session
            if session is None or session.over.is_set() or kept.said.gone.is_set() or kept.task is None:
                session = await self._again(link, kept, bound)
            elif fresh or monotonic() - session.listed_at > FRESH_S:
                await self._heard(link, kept, session.list)
        session.used_at = monotonic()
        return session

    def _make_room(self) -> None:
        if len(self._kept) < SESSIONS_MAX:
            return
        free = [it for it in self._kept.items() if it[1].session is None or not it[1].session.in_use]
        if not free:
            raise Unreached(f"{SESSIONS_MAX} sessions are open, which is the most")
        oldest = min(free, key=lambda it: it[1].session.used_at if it[1].session is not None else 0.0)
        self._drop(oldest[0])

    async def _again(self, link: Link, kept: _Kept, bound: asyncio.Timeout) -> Session:
        """Open it, twice if need be; after that, or once the time for it is over, not before a pause is."""
        if (wait_s := kept.again_at - monotonic()) > WAITED_FOR_S:
            raise Unreached(f"{link.name} could not be opened, and is tried again in {wait_s:.1f} s: {kept.why}")
        await asyncio.sleep(wait_s)
        self._retire(kept)
        retrying = AsyncRetrying(stop=stop_after_attempt(ATTEMPTS_MAX), wait=_pause, reraise=True, retry=_is_unreached)
        try:
            async for attempt in retrying:
                with attempt:
                    await self._heard(link, kept, lambda: self._begin(link, kept))
        except (Unreached, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and not bound.expired():
                raise
            kept.failures, kept.why = kept.failures + 1, str(error) or "it did not answer in time"
            state = RetryCallState(retrying, None, (), {})
            state.attempt_number = kept.failures + 1
            kept.again_at = monotonic() + _pause(state)
            raise
        kept.failures = 0
        if kept.session is None:
            raise Unreached(f"{link.name} was changed while it was opened")
        return kept.session

    async def _begin(self, link: Link, kept: _Kept) -> None:
        ready: asyncio.Future[Session] = asyncio.get_running_loop().create_future()
        before, kept.said = kept.said, Said()
        kept.said.text = before.text
        task = kept.task = asyncio.get_running_loop().create_task(self._live(link, kept.said, ready))
        task.add_done_callback(lambda _: ready.done() or ready.cancel())
        gone = asyncio.ensure_future(kept.said.gone.wait())
        try:
            await asyncio.wait((ready, gone), return_when=asyncio.FIRST_COMPLETED)
            if not ready.done() or kept.task is not task:  # it died, or was let go while it was opened
                raise ConnectionError("it ended")
            kept.session = ready.result()
        except BaseException:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if ready.done() and not ready.cancelled():
                ready.exception()  # it is told by what was raised here
            raise
        finally:
            gone.cancel()

    async def _live(self, link: Link, said: Said, ready: "asyncio.Future[Session]") -> None:
        """One session from its opening to its end; whoever waits for it hears why it could not be opened."""
        told: list[Session] = []

        async def heard(message: Any) -> None:
            if isinstance(message, types.ToolListChangedNotification) and told:
                told[0].changed()

        try:
            async with AsyncExitStack() as stack:
                client = await stack.enter_async_context(self._client(link, said, heard))
                session = Session(client, said, link.secret)
                told.append(session)
                await session.list()
                ready.set_result(session)
                await _until_over(session)
        except Exception as error:  # noqa: BLE001 - the boundary of a far side: anything may come of it
            if not ready.done():
                ready.set_exception(error)
        finally:
            for it in told:
                it.over.set()

    def _client(self, link: Link, said: Said, heard: Callable[[Any], Awaitable[None]]) -> Client:
        assert isinstance(link.spec, McpConnection)
        limits, options = link.spec.limits, link.spec.options
        info = types.Implementation(name="steward", version=VERSION)
        common: dict[str, Any] = {"client_info": info, "cache": None, "message_handler": heard}
        if link.spec.endpoint == STDIO:
            variables = dict(options.env)
            if options.env_from_secret is not None:
                variables[options.env_from_secret] = link.secret
            command = self._startable.require(link.spec, link.name)
            return Client(process(command, variables, limits.response_bytes_max, said), **common)
        transport = Checked(
            link.name,
            link.namespace,
            secret_headers(link, options),
            allow_private=options.allow_private,
            connect_s=limits.timeout_s,
            bytes_max=limits.response_bytes_max,
        )
        http = httpx2.AsyncClient(transport=transport, timeout=None, trust_env=False)
        streams = streamable_http_client(
            link.spec.endpoint, http_client=http, max_sse_event_size=limits.response_bytes_max
        )
        return Client(streams, **common)

    async def _heard(self, link: Link, kept: _Kept, asking: Callable[[], Awaitable[None]]) -> None:
        """Ask what changes nothing: whatever breaks, the far side is not reached, for now."""
        flight = Flight()
        token = FLIGHT.set(flight)
        try:
            await asking()
        except Refusal:
            self._retire(kept)
            raise
        except (Exception, asyncio.CancelledError) as error:
            self._retire(kept)
            if isinstance(error, asyncio.CancelledError) and (task := asyncio.current_task()) and task.cancelling():
                raise
            if flight.refusal is not None:
                raise flight.refusal from None
            why = f"{reason_of(error, flight, link.secret)}{self._said(link)}"
            raise Unreached(f"{link.name} can not be opened: {why}") from error
        finally:
            FLIGHT.reset(token)


def _is_unreached(state: RetryCallState) -> bool:
    return state.outcome is not None and isinstance(state.outcome.exception(), Unreached)


async def _ended_when_unused(session: Session | None, task: "asyncio.Task[None]") -> None:
    """End a session's task, and with it its process, if it has one; calls over it have a time of their own."""
    if session is not None:
        first = [asyncio.ensure_future(it.wait()) for it in (session.unused, session.over)]
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        for it in first:
            it.cancel()
        session.over.set()
        await asyncio.wait((task,), timeout=ENDS_WITHIN_S)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _until_over(session: Session) -> None:
    """Listen for changes of the tools, where the server tells of them, until the session is over."""
    over = asyncio.ensure_future(session.over.wait())
    try:
        while not session.over.is_set():
            listening = asyncio.ensure_future(_listen(session))
            await asyncio.wait((over, listening), return_when=asyncio.FIRST_COMPLETED)
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            session.changed()  # what was not heard meanwhile is looked at
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(over), FRESH_S)
    finally:
        over.cancel()


async def _listen(session: Session) -> None:
    offers = session.client.server_capabilities.tools
    if offers is None or not offers.list_changed:
        await session.over.wait()
    try:
        async with session.client.listen(tools_list_changed=True) as told:
            async for _ in told:
                session.changed()
    except ListenNotSupportedError:  # of the era before: it is told without being asked
        await session.over.wait()
    except (SubscriptionLost, MCPError, TimeoutError):
        return


def reason_of(error: BaseException, flight: Flight, secret: str) -> str:
    """Why, in a few words: what the transport met says more than what the client makes of it. Without the secret."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if flight.broke:
        return shortened(flight.broke, SHOWN_CHARS_MAX, secret)
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    if isinstance(error, MCPError):
        told = f" (HTTP {flight.status})" if flight.status >= 300 else ""
        return f"{shortened(error.error.message, SHOWN_CHARS_MAX, secret)}{told}"
    return shortened(f"{type(error).__name__}: {error}", SHOWN_CHARS_MAX, secret)
