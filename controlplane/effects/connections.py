"""Connections, as the gate needs them: read when they are used, with their secret opened right before sending.

The limits of a connection are kept here for all agents together: so many calls in flight, so many a
second, evenly spaced. Who waits for a place waits until its `send_by` at most, and is then not sent.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import orjson

from controlplane.effects.reading import Reader
from controlplane.resources.problems import refuse
from controlplane.store import external as sql
from schemas.connection import connection_spec
from schemas.endpoint import ConnectionSpec
from schemas.ports import Clock, Link

OpenSecret = Callable[[str, bytes, bytes], str]
LANES_MAX = 1_000
SPECS_MAX = 200


class Lane:
    """The places of one connection, at one generation of it."""

    def __init__(self, declared: Link, free_at: float) -> None:
        self.generation = declared.generation
        self.places = asyncio.Semaphore(declared.spec.limits.in_flight_max)
        self.every_s = 1.0 / declared.spec.limits.calls_per_s_max
        self.free_at = free_at

    def turn_at(self, now: float) -> float:
        """When the next call may be sent."""
        at = max(now, self.free_at)
        self.free_at = at + self.every_s
        return at


class Connections:
    """The connections that this gate's agents use."""

    def __init__(self, reader: Reader, open_secret: OpenSecret, steady: Clock) -> None:
        self._reader = reader
        self._open_secret = open_secret
        self._steady = steady
        self._lanes: dict[str, Lane] = {}
        self._specs: dict[str, tuple[int, ConnectionSpec]] = {}

    def named(self, namespace: str, name: str) -> Link | None:
        """The connection of this name, as of now, without its secret."""
        row = self._reader.one(sql.CONNECTION, namespace, name)
        if row is None:
            return None
        return Link(name, self._spec(*row), "", namespace, row[0], row[1])

    def _spec(self, uid: str, generation: int, text: str) -> ConnectionSpec:
        """A spec is read once for each of its generations: one with a document in it takes a while."""
        kept = self._specs.get(uid)
        if kept is None or kept[0] != generation:
            if len(self._specs) >= SPECS_MAX:
                self._specs.clear()
            kept = self._specs[uid] = generation, connection_spec(orjson.loads(text))
        return kept[1]

    def link(self, declared: Link) -> Link:
        """The connection with its secret in the clear; raises NOT_SET_UP when there is no such value."""
        wanted = declared.spec.secret
        if wanted is None:
            return declared
        row = self._reader.one(sql.SPEC_OF, declared.namespace, wanted.name)
        kept = orjson.loads(row[0])["values"].get(wanted.key) if row is not None else None
        sealed = self._reader.one(sql.SEALED, kept["ref"]) if kept is not None else None
        if kept is None or sealed is None:
            detail = f"connection {declared.name} needs key {wanted.key} of secret {wanted.name}, which has no value"
            raise refuse(
                "NOT_SET_UP", detail, connection=declared.name, name=wanted.name, key=wanted.key, kind="Secret"
            )
        value = self._open_secret(kept["ref"], bytes(sealed[0]), bytes(sealed[1]))
        return replace(declared, secret=value)

    @contextlib.asynccontextmanager
    async def place(self, declared: Link, send_by: float) -> AsyncIterator[None]:
        """A place among the calls in flight, and the connection's turn; raises TimeoutError when neither comes."""
        lane = self._lane(declared)
        async with asyncio.timeout(max(0.0, send_by - self._steady())):
            await lane.places.acquire()
        try:
            wait_s = lane.turn_at(self._steady()) - self._steady()
            if self._steady() + wait_s > send_by:
                lane.free_at -= lane.every_s  # given back
                raise TimeoutError
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            yield
        finally:
            lane.places.release()

    def _lane(self, declared: Link) -> Lane:
        lane = self._lanes.get(declared.uid)
        if lane is None or lane.generation != declared.generation:
            now = self._steady()
            if len(self._lanes) >= LANES_MAX:
                self._lanes = {uid: it for uid, it in self._lanes.items() if it.free_at > now or it.places.locked()}
            lane = self._lanes[declared.uid] = Lane(declared, lane.free_at if lane is not None else now)
        return lane


def sealed(ref: str, _nonce: bytes, _ciphertext: bytes) -> str:
    """A gate that was given no key opens no secret."""
    raise refuse("NOT_SET_UP", f"this gate has no key to open {ref} with", ref=ref, kind="Secret")
