"""Who calls, in what request, and how an operation is called: what all of the surface knows."""

from collections.abc import Awaitable, Callable
from typing import Any, cast

from mcp.server import ServerRequestContext
from pydantic import BaseModel

from controlplane.protocols.envelopes import trace_of
from schemas.principal import Principal

Caller = Callable[[Principal, str, dict[str, Any]], Awaitable[BaseModel]]
Context = ServerRequestContext[Any, Any]


def principal_of(context: Context) -> Principal:
    """Who the boundary said is calling."""
    assert context.request is not None
    return cast(Principal, context.request.scope["state"]["principal"])


def trace_at(context: Context) -> str | None:
    """The W3C trace context of a request: that of its `_meta`, else of the HTTP request that brings it; or none."""
    assert context.request is not None
    said = (context.meta or {}).get("traceparent")
    return trace_of(said) or trace_of(context.request.headers.get("traceparent"))
