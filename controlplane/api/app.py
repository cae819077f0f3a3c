"""The plane on one HTTP port: REST, feedback, MCP, health, metrics, the OpenAPI document.

Made by walking the catalogue; a new operation needs nothing here. The order of what a request
passes is the order below: boundary, routes of operations, MCP, the rest. Whoever starts the app
gives it the dispatcher, the check of tokens, and what says that messages are durably accepted.
"""

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route

from controlplane.api.answers import JSON, plain, problem_answer
from controlplane.api.boundary import MCP_AGENTS, MCP_PATHS, Authenticate, Boundary, Rules, base_url
from controlplane.api.channel_streams import ChannelStreams
from controlplane.api.document import DocumentedApp
from controlplane.api.events import feedback_responder
from controlplane.api.hooks import Post, hook_route
from controlplane.api.metrics import Caller, Metrics, bounded, metered
from controlplane.api.routes import add_routes
from controlplane.feedback.heads import Heads
from controlplane.feedback.places import Places
from controlplane.feedback.stream import EventStreams
from controlplane.resources.problems import problem, refuse
from mcp_server.server import McpSurface
from schemas.problem import Problem

PROTECTED = ("", *MCP_PATHS, f"{MCP_AGENTS}{{namespace}}")
Ready = Callable[[], Awaitable[bool]]


@dataclass(frozen=True)
class Surfaces:
    """What the surfaces need of the plane."""

    call: Caller
    authenticate: Authenticate
    ready: Ready
    version: str
    body_bytes_max: int = 4 * 1024 * 1024
    body_bytes_in_flight_max: int = 128 * 1024 * 1024
    body_s_max: float = 60.0
    calls_in_flight_max: int = 1024
    loopback: bool = True
    post: Post | None = None
    heads: Heads | None = None
    streams: EventStreams = field(default_factory=EventStreams)


def create_app(given: Surfaces) -> FastAPI:
    """The ASGI app of one plane; its lifespan may run once."""
    metrics = Metrics()
    read = metered(given.call, metrics)
    call = bounded(read, Places("calls", "calls_in_flight_max", given.calls_in_flight_max))
    mcp = McpSurface(
        call, read, readers=given.streams.places, version=given.version, body_bytes_max=given.body_bytes_max
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with mcp.running():
            yield

    app = DocumentedApp(
        title="Steward",
        version=given.version,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,  # what is not a route is a Problem
    )
    app.add_middleware(Boundary, rules=_rules(given))
    app.add_exception_handler(HTTPException, _unrouted)
    endpoints = (mcp.intents, mcp.full, mcp.agents)
    for path, endpoint in zip((*MCP_PATHS, f"{MCP_AGENTS}{{namespace}}"), endpoints, strict=True):
        app.router.routes.append(Route(path, endpoint=endpoint, methods=["POST"]))
    add_routes(app.router, call, {"feedback.read": feedback_responder(call, read, given.streams)})
    _add_rest(app, given.ready, metrics)
    if given.heads is not None:
        app.router.routes.extend(ChannelStreams(call, read, given.streams, given.heads).routes())
    if given.post is not None:
        app.router.routes.append(hook_route(given.post))
    app.state.mcp = mcp
    return app


def _rules(given: Surfaces) -> Rules:
    most = max(given.body_bytes_in_flight_max, 4 * given.body_bytes_max)  # room for one whole body in every share
    bodies = Places("bytes of bodies", "body_bytes_in_flight_max", most)
    return Rules(given.authenticate, given.body_bytes_max, bodies, given.body_s_max, given.loopback)


def _add_rest(app: DocumentedApp, ready: Ready, metrics: Metrics) -> None:
    async def readyz(_: Request) -> Response:
        if await ready():
            return plain({"ready": True})
        raise refuse("NOT_READY", "messages are not durably accepted yet", retry_after_s=1.0)

    async def show_metrics(request: Request) -> Response:
        text = metrics.text(request.state.principal)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    document = _Once(app.openapi)
    routes: list[tuple[str, Any]] = [
        ("/healthz", _healthz),
        ("/readyz", readyz),
        ("/metrics", show_metrics),
        ("/openapi.json", document),
        *((f"/.well-known/oauth-protected-resource{path}", _resource_metadata) for path in PROTECTED),
    ]
    app.router.routes.extend(Route(path, endpoint=endpoint, methods=["GET"]) for path, endpoint in routes)


async def _healthz(_: Request) -> Response:
    return plain({"alive": True})


class _Once:
    """The document, made when it is first asked for, with an ETag."""

    def __init__(self, make: Callable[[], dict[str, Any]]) -> None:
        self._make = make
        self._kept: tuple[bytes, str] | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._kept is None:
            body = orjson.dumps(self._make())
            self._kept = body, f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        body, etag = self._kept
        fresh = Request(scope).headers.get("if-none-match") == etag
        headers = {"ETag": etag, "Cache-Control": "no-cache"}
        response = Response(status_code=304, headers=headers) if fresh else Response(body, 200, headers, JSON)
        await response(scope, receive, send)


async def _resource_metadata(request: Request) -> Response:
    """RFC 9728: what protects the MCP endpoints. Tokens are made by the plane itself."""
    path = request.url.path.removeprefix("/.well-known/oauth-protected-resource") or MCP_PATHS[0]
    return plain(
        {
            "resource": base_url(request.scope) + path,
            "resource_name": "Steward",
            "bearer_methods_supported": ["header"],
            "authorization_servers": [],
        }
    )


async def _unrouted(request: Request, error: Exception) -> Response:
    """What the router refuses, as Problems."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    path = request.url.path
    if status == 405:
        allowed = sorted(_methods(request))
        found = problem("METHOD_NOT_ALLOWED", f"{path} takes {', '.join(allowed)}", path=path, methods=allowed)
        return problem_answer(found, request.state.call_id, {"Allow": ", ".join(allowed)})
    return problem_answer(_nothing_at(path), request.state.call_id)


def _nothing_at(path: str) -> Problem:
    shown = path if len(path) <= 200 else f"{path[:200]}…"
    return problem("NOT_FOUND", f"there is nothing at {shown}; /openapi.json lists what there is", path=shown)


def _methods(request: Request) -> set[str]:
    app: Starlette = request.app
    found: set[str] = set()
    for route in app.router.routes:
        if isinstance(route, Route) and route.matches(dict(request.scope))[0] != Match.NONE:
            found |= set(route.methods or ())
    return found - {"HEAD"}
