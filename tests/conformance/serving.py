"""The plane, as it serves MCP, with the suite's fixtures on top; its caller is let in as the admin.

The suite sends no token of ours, so each of its requests gets one before it comes to the boundary:
whatever comes after, from the boundary on, is the product.
"""

from contextlib import AbstractAsyncContextManager

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.api.plane import Plane, listening
from tests.conformance.fixtures import add_fixtures


class _LetIn:
    """Adds a token to a request that has none."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._header = (b"authorization", f"Bearer {token}".encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not any(key == b"authorization" for key, _ in scope["headers"]):
            scope = {**scope, "headers": [*scope["headers"], self._header]}
        await self._app(scope, receive, send)


def _with_fixtures(app: FastAPI, plane: Plane) -> ASGIApp:
    for endpoint in (app.state.mcp.intents, app.state.mcp.full):
        add_fixtures(endpoint.server)
    return _LetIn(app, plane.tokens["admin"])


def conformant(url: str) -> AbstractAsyncContextManager[Plane]:
    """The plane under the suite, on a real port."""
    return listening(url, around=_with_fixtures)
