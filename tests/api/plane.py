"""The surfaces over a whole plane: in process, or on a real port."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
from fastapi import FastAPI
from starlette.types import ASGIApp

from controlplane.api.app import Surfaces, create_app
from controlplane.api.serving import PlaneServer
from controlplane.feedback.heads import Heads
from controlplane.store.unit import Unit
from tests.api.parts import ISSUED, Parts, running

BASE = "http://127.0.0.1"
BODY_BYTES_MAX = 200_000


class Plane:
    """One plane's surfaces; `tokens` by role, and `foreign`, an operator of another namespace."""

    def __init__(self, parts: Parts, **surfaces: Any) -> None:
        self.parts = parts
        self.store, self.bell, self.call = parts.store, parts.bell, parts.dispatcher.call
        self.ready = True
        self.tokens: dict[str, str] = {}
        self.token_ids: dict[str, str] = {}
        self.url = BASE
        self._surfaces = surfaces

    async def issue_tokens(self) -> None:
        for label, given in ISSUED.items():
            self.tokens[label], self.token_ids[label] = await self.parts.issue(**given)

    def app(self) -> FastAPI:
        async def ready() -> bool:
            return self.ready

        given: dict[str, Any] = {
            "call": self.call,
            "authenticate": self.parts.authenticate,
            "ready": ready,
            "version": "0.0.0",
            "body_bytes_max": BODY_BYTES_MAX,
            "post": self.parts.gate.post,
            "heads": Heads(self.store, self.bell),
        }
        return create_app(Surfaces(**given | self._surfaces))

    def headers(self, token: str | None = "admin", **more: str) -> dict[str, str]:
        authorization = {} if token is None else {"Authorization": f"Bearer {self.tokens.get(token, token)}"}
        return authorization | more

    async def happen(self, type_: str, namespace: str = "default", name: str = "a") -> None:
        unit = Unit().event(type_, kind="Agent", namespace=namespace, name=name, now=time.time(), data={"n": 1})
        assert await self.store.write(unit)
        self.bell.ring()


@contextlib.asynccontextmanager
async def in_process(url: str, **surfaces: Any) -> AsyncIterator[tuple[Plane, httpx.AsyncClient]]:
    """A plane and a client of its admin, without a socket."""
    async with running(url) as parts:
        plane = Plane(parts, **surfaces)
        await plane.issue_tokens()
        app = plane.app()
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(
                transport=transport, base_url=BASE, headers=plane.headers(), timeout=30
            ) as client:
                yield plane, client


@contextlib.asynccontextmanager
async def listening(
    url: str, around: Callable[[FastAPI, Plane], ASGIApp] = lambda app, _: app, **surfaces: Any
) -> AsyncIterator[Plane]:
    """A plane on a real port of the loopback; `around` may put something before its app."""
    async with running(url) as parts:
        plane = Plane(parts, **surfaces)
        await plane.issue_tokens()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            server = PlaneServer(around(plane.app(), plane), stopping=plane.bell.close, host="127.0.0.1", port=0)
            serving = asyncio.ensure_future(server.serve(sockets=[listener]))
            plane.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            try:
                await _until(lambda: server.started)
                yield plane
            finally:
                server.should_exit = True
                await asyncio.wait_for(serving, 10)


async def _until(condition: Any, limit_s: float = 5) -> None:
    limit = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < limit
        await asyncio.sleep(0.01)
