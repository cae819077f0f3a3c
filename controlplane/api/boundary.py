"""The one way in: every request of every surface passes here, in this order.

A call gets its id; a host or origin that is not ours is turned away; the token is checked, before
anything else is looked at; the body is read within its limit and parsed strictly; then the request
goes on, with `principal`, `call_id`, `body` and the parsed `json` in its state. What comes back as
a Refusal is answered as a Problem. This is the one place that catches everything: what nobody
expected is answered as INTERNAL under its call's id, and logged by the place it came from, without
its message, because messages may quote what was sent. Tokens and bodies are never logged.
"""

import logging
import secrets
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from controlplane.api.answers import problem_answer
from controlplane.api.bearers import bearer, socket_bearer
from controlplane.api.bodies import PARSED_AT_ONCE_MAX, Held, header, parse_json, read_body, require_json_type
from controlplane.feedback.places import Places
from controlplane.feedback.presence import ClientGoneError
from controlplane.mesh.tracing import tracing
from controlplane.protocols.envelopes import trace_of
from controlplane.resources.problems import problem, refuse
from schemas.calls import DATA_BYTES_MAX
from schemas.principal import Principal
from schemas.problem import Problem, Refusal

Authenticate = Callable[[str], Awaitable[Principal]]  # raises UNAUTHENTICATED

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
OPEN_PREFIX = "/.well-known/"
HOOKS = "/hooks/"  # what is posted there is signed, and checked by the gate
MCP_PATHS = ("/mcp", "/mcp/full")
MCP_AGENTS = "/mcp/agents/"  # and a namespace
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_logger = logging.getLogger("steward.api")


@dataclass(frozen=True)
class Rules:
    """What the boundary goes by."""

    authenticate: Authenticate
    body_bytes_max: int
    bodies: Places  # the bytes of all bodies
    body_s_max: float = 60.0
    loopback: bool = True


class Boundary:
    """ASGI middleware around everything that is served."""

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        self._app = app
        self._rules = rules
        self._parsing = anyio.CapacityLimiter(PARSED_AT_ONCE_MAX)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        scope["headers"] = [(name, value.strip(b" \t")) for name, value in scope["headers"]]  # padding is no value
        state = scope.setdefault("state", {})
        call_id = state["call_id"] = secrets.token_hex(10)
        answer = _Watched(send, call_id)
        try:
            with tracing(_trace(scope)):
                await self._app(scope, await self._admit(scope, receive), answer)
        except ClientGoneError:
            return
        except Refusal as refusal:
            found = refusal.problem
        except Exception as error:  # noqa: BLE001 - the HTTP boundary: whatever is left becomes INTERNAL
            found = unexpected(error, call_id)
        else:
            return
        finally:
            if (held := state.get("held")) is not None:
                held.let_go()
        if answer.started:
            raise Refusal(found)  # too late to answer: the server ends the connection
        await problem_answer(found, call_id, _challenge(scope, found))(scope, receive, answer)

    async def _admit(self, scope: Scope, receive: Receive) -> Receive:
        """Check the request; answers what the rest of the request is received from."""
        if self._rules.loopback:
            _require_own_host(scope)
        path: str = scope["path"]
        if path in OPEN_PATHS or path.startswith(OPEN_PREFIX):
            return receive
        if path.startswith(HOOKS):
            return await self._hook(scope, receive)
        state = scope["state"]
        token = bearer(scope)
        state["principal"] = await self._rules.authenticate(token)
        state["receive"] = receive
        state["authenticate"] = lambda: self._rules.authenticate(token)
        return await self._body(scope, receive)

    async def _hook(self, scope: Scope, receive: Receive) -> Receive:
        """A body from who holds no token; all of these together have one share, and one of them its bound."""
        held = scope["state"]["held"] = Held(self._rules.bodies, HOOKS)
        most = min(DATA_BYTES_MAX, self._rules.body_bytes_max)
        return _Replay(await read_body(scope, receive, most, self._rules.body_s_max, held), receive)

    async def _body(self, scope: Scope, receive: Receive) -> Receive:
        if scope["method"] in ("GET", "HEAD") and header(scope, b"content-length") in (None, b"0"):
            return receive
        state = scope["state"]
        held = state["held"] = Held(self._rules.bodies, state["principal"].identity)
        body = await read_body(scope, receive, self._rules.body_bytes_max, self._rules.body_s_max, held)
        if body:
            require_json_type(scope)
            try:
                state["json"] = await parse_json(body, held, self._parsing)
            except Refusal as refusal:
                if not is_mcp(scope["path"]):
                    raise
                state["body"], state["refused"] = body, refusal.problem  # may be a call all the same
        return _Replay(body, receive)

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._socket(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An upgrade passes as a request does; what is refused before it is answered as a Problem."""
        call_id = scope.setdefault("state", {})["call_id"] = secrets.token_hex(10)
        answer = _Watched(send, call_id)
        try:
            await self._admit_socket(scope)
            await self._app(scope, receive, answer)
        except Refusal as refusal:
            found = refusal.problem
        except Exception as error:  # noqa: BLE001 - the HTTP boundary, as above
            found = unexpected(error, call_id)
        else:
            return
        if answer.started:
            await send({"type": "websocket.close", "code": 1011, "reason": found.reason})
        else:
            await problem_answer(found, call_id, _challenge(scope, found))(scope, receive, answer)

    async def _admit_socket(self, scope: Scope) -> None:
        if self._rules.loopback:
            _require_own_host(scope)
        token = socket_bearer(scope)
        scope["state"]["principal"] = await self._rules.authenticate(token)
        scope["state"]["authenticate"] = lambda: self._rules.authenticate(token)


class _Watched:
    """Sends on, names the call in every answer, and knows whether the answer has begun."""

    def __init__(self, send: Send, call_id: str) -> None:
        self._send = send
        self._call_id = call_id.encode()
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "websocket.accept":
            self.started = True
        elif message["type"] in ("http.response.start", "websocket.http.response.start"):
            self.started = True
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", self._call_id)]
        await self._send(message)


class _Replay:
    """Receives the body that was read already, then whatever comes after it."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


def _trace(scope: Scope) -> str | None:
    """The trace that a request is part of; what is malformed is none, as the W3C asks."""
    given = header(scope, b"traceparent")
    return None if given is None else trace_of(given.decode("latin-1"))


def _require_own_host(scope: Scope) -> None:
    """A plane on the loopback answers to its own names only, so that no page can be rebound to it."""
    host = (header(scope, b"host") or b"").decode("latin-1")
    if _hostname("//" + host) not in _LOOPBACK:
        raise refuse("FOREIGN_HOST", "this plane listens on the loopback, and answers to 127.0.0.1 and localhost")
    origin = header(scope, b"origin")
    if origin is not None and _hostname(origin.decode("latin-1")) not in _LOOPBACK:
        raise refuse("FOREIGN_ORIGIN", "only pages of 127.0.0.1 and localhost may call this plane")


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def is_mcp(path: str) -> bool:
    """Whether an MCP endpoint is served there."""
    return path in MCP_PATHS or (path.startswith(MCP_AGENTS) and "/" not in path[len(MCP_AGENTS) :])


def base_url(scope: Scope) -> str:
    """This plane as the client calls it."""
    host = (header(scope, b"host") or b"127.0.0.1").decode("latin-1")
    return f"{scope.get('scheme', 'http')}://{host}"


def _challenge(scope: Scope, found: Problem) -> dict[str, str]:
    if found.status != 401 or scope["path"].startswith(HOOKS):
        return {}
    path = scope["path"].rstrip("/")
    if is_mcp(path):
        metadata = f"{base_url(scope)}/.well-known/oauth-protected-resource{path}"
        return {"WWW-Authenticate": f'Bearer realm="steward", resource_metadata="{metadata}"'}
    return {"WWW-Authenticate": 'Bearer realm="steward"'}


def place_of(error: BaseException) -> str:
    """Where it came from, innermost first, without any text of it or of the source."""
    frames = traceback.extract_tb(error.__traceback__)
    return " < ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in reversed(frames))


def unexpected(error: Exception, call_id: str) -> Problem:
    """INTERNAL for what nobody expected; the log gets its kind and its place."""
    _logger.error("call %s failed: %s at %s", call_id, type(error).__qualname__, place_of(error))
    return problem(
        "INTERNAL",
        f"something broke here; the log of the plane tells more under call {call_id}",
        call=call_id,
    ).model_copy(update={"changed": "unknown"})
