"""Who calls, in what request, and how an operation is called: what all of the surface knows."""

from collections.abc import Awaitable, Callable
from typing import Any, cast

from mcp.server import ServerRequestContext
from pydantic import BaseModel

from schemas.principal import Principal

Caller = Callable[[Principal, str, dict[str, Any]], Awaitable[BaseModel]]
Context = ServerRequestContext[Any, Any]


def principal_of(context: Context) -> Principal:
    """Who the boundary said is calling."""
    assert context.request is not None
    return cast(Principal, context.request.scope["state"]["principal"])
