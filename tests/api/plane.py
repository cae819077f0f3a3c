"""The surfaces over a real dispatcher and store, without gate and Ray: in process, or on a real port."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
from fastapi import FastAPI

from controlplane.api.app import Surfaces, create_app
from controlplane.api.serving import PlaneServer
from controlplane.feedback.cursors import Cursors
from controlplane.feedback.doorbell import LocalDoorbell
from controlplane.store.store import Store
from controlplane.store.unit import Unit
from tests.api.parts import ISSUED, authenticator, dispatcher, issue

BASE = "http://127.0.0.1"
BODY_BYTES_MAX = 200_000
CURSORS = Cursors(b"tests")


class Plane:
    """One plane's surfaces; `tokens` by role, and `foreign`, an operator of another namespace."""

    def __init__(self, store: Store, **surfaces: Any) -> None:
        self.store = store
        self.bell = LocalDoorbell()
        self.ready = True
        self.tokens: dict[str, str] = {}
        self.token_ids: dict[str, str] = {}
        self.url = BASE
        self.dispatcher = dispatcher(store, self.bell, CURSORS)
        self.authenticate = authenticator(store)
        self._surfaces = surfaces

    async def issue_tokens(self) -> None:
        for label, given in ISSUED.items():
            self.tokens[label], self.token_ids[label] = await issue(self.dispatcher, **given)

    def app(self) -> FastAPI:
        async def ready() -> bool:
            return self.ready

        given: dict[str, Any] = {"body_bytes_max": BODY_BYTES_MAX, "version": "0.0.0", **self._surfaces}
        return create_app(Surfaces(call=self.dispatcher.call, authenticate=self.authenticate, ready=ready, **given))

    def headers(self, token: str | None = "admin", **more: str) -> dict[str, str]:
        authorization = {} if token is None else {"Authorization": f"Bearer {self.tokens.get(token, token)}"}
        return authorization | more

    async def happen(self, type_: str, namespace: str = "default", name: str = "a") -> None:
        unit = Unit().event(type_, kind="Agent", namespace=namespace, name=name, now=time.time(), data={"n": 1})
        assert await self.store.write(unit)
        self.bell.ring()


@contextlib.asynccontextmanager
async def in_process(store: Store, **surfaces: Any) -> AsyncIterator[tuple[Plane, httpx.AsyncClient]]:
    """A plane and a client of its admin, without a socket."""
    plane = Plane(store, **surfaces)
    await plane.issue_tokens()
    app = plane.app()
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=BASE, headers=plane.headers()) as client:
            yield plane, client


@contextlib.asynccontextmanager
async def listening(store: Store, **surfaces: Any) -> AsyncIterator[Plane]:
    """A plane on a real port of the loopback."""
    plane = Plane(store, **surfaces)
    await plane.issue_tokens()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = PlaneServer(plane.app(), stopping=plane.bell.close, host="127.0.0.1", port=0)
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        plane.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        await _until(lambda: server.started)
        try:
            yield plane
        finally:
            server.should_exit = True
            await asyncio.wait_for(serving, 10)


async def _until(condition: Any, limit_s: float = 5) -> None:
    limit = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < limit
        await asyncio.sleep(0.01)
