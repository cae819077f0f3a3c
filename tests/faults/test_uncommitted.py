"""A reader that meets a position which is taken and not committed: it stops there, and loses nothing (rule M2)."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from controlplane.feedback.cursors import Cursors
from controlplane.feedback.doorbell import LocalDoorbell
from controlplane.feedback.log import FeedbackLog
from controlplane.operations.living.channels import Channels
from controlplane.store import statements as sql
from controlplane.store.batching import Job, grouped
from controlplane.store.on_postgresql import PostgresConnection
from controlplane.store.unit import Unit
from schemas.calls import ChannelReadInput
from schemas.principal import Call, Principal
from schemas.records import FeedbackInput
from tests.gate.far import put
from tests.gate.running import RunningGate, running
from tests.gate.zoo import SOURCE

pytestmark = pytest.mark.anyio
ADMIN = Principal("admin", "admin", ("*",))
TYPES = {"types": ["work.*"]}
WAITS = (
    "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    " AND application_name LIKE '%gate%'"
)


def body(message_id: str, data: int) -> bytes:
    return orjson.dumps({
        "specversion": "1.0", "id": message_id, "source": "/operators/test", "type": "steward.message",
        "time": "2026-01-01T00:00:00Z", "data": data,
    })  # fmt: skip


class Reader:
    """Reads a channel and the feedback log on, from where it was told to go on."""

    def __init__(self, gate: RunningGate) -> None:
        bell = LocalDoorbell()
        self._channels = Channels(gate.store, gate.client, bell)
        self._log = FeedbackLog(gate.store, bell, Cursors(b"a key of the tests"))
        self._cursors: tuple[str | None, str | None] = (None, None)

    async def on(self, wait_s: float = 0) -> tuple[list[Any], list[Any]]:
        """What there is after the cursors, of both."""
        now = time.time()
        news, log = self._cursors
        asked = ChannelReadInput(name="news", after=news, wait_s=wait_s)
        found = await self._channels.read(Call(ADMIN, "channels.read", now), asked)
        given = FeedbackInput.model_validate({"after": log, "filter": TYPES, "wait_s": wait_s})
        told = await self._log.read(Call(ADMIN, "feedback.read", now), given)
        self._cursors = (found.cursor, told.cursor)
        return [it["data"] for it in found.envelopes], [it.data["n"] for it in told.events]


class Other:
    """A second writer of the same database, with a transaction that it does not end."""

    def __init__(self, url: str) -> None:
        self._connection = PostgresConnection(url, lambda _: True)

    def take(self, n: int) -> None:
        """The next position of the channel, and of the log."""
        message_id = f"other-{n}"
        put = (message_id, "", None, body(message_id, n).decode(), time.time(), "default", "news", message_id)
        event = Unit().event("work.done", kind="Channel", namespace="default", name="news", now=1.0, data={"n": n})
        rows: list[Any] = [(sql.CHANNEL_PUT, put, 1), (sql.CHANNEL_BUMP, ("default", "news"), 1)]
        self._connection.begin()
        assert self._connection.attempt(grouped([Job([*rows, *event.compiled("postgresql")], lambda *_: None)]))

    def end(self, *, commit: bool) -> None:
        if commit:
            self._connection.commit()
        else:
            self._connection.rollback()

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
async def gate(anyio_backend: str, postgresql_url: str) -> AsyncIterator[RunningGate]:
    """With a channel that an agent and everybody may read."""
    async with running(postgresql_url) as gate:
        member = await gate.agent("member", await gate.code(SOURCE), "Member", suspend_after_ms=60_000)
        await gate.channel("news", member)
        await put(gate, Unit(), "Channel", "news", {})
        yield gate


async def say(gate: RunningGate, n: int) -> None:
    """By the gate: a publication, and an event."""
    event = Unit().event("work.done", kind="Channel", namespace="default", name="news", now=1.0, data={"n": n})
    await asyncio.gather(
        gate.client.publish_channel("default", "news", f"own-{n}", body(f"own-{n}", n)), gate.store.write(event)
    )


@pytest.mark.parametrize("commit", [True, False])
async def test_a_reader_stops_at_what_is_not_committed_and_loses_nothing(
    gate: RunningGate, postgresql_url: str, *, commit: bool
) -> None:
    """Two readers, one that waits, and a member: what is said behind the open transaction comes after it, once."""
    reader, patient, other = Reader(gate), Reader(gate), Other(postgresql_url)
    await say(gate, 1)
    assert await reader.on() == await patient.on() == ([1], [1])
    waiting = asyncio.create_task(patient.on(wait_s=20))
    try:
        await asyncio.to_thread(other.take, 2)
        saying = asyncio.create_task(say(gate, 3))
        await gate.until(WAITS, lambda rows: rows[0][0] > 0)
        for _ in range(5):
            assert await reader.on() == ([], [])
        assert not saying.done(), "a later position was committed before an earlier one"
        assert not waiting.done()
        await asyncio.to_thread(lambda: other.end(commit=commit))
        await saying
    finally:
        other.close()
    wanted = [2, 3] if commit else [3]
    assert await reader.on() == (wanted, wanted)
    first = await waiting
    rest = await patient.on()
    assert (first[0] + rest[0], first[1] + rest[1]) == (wanted, wanted)
    await gate.until(
        "SELECT 1 FROM turn WHERE agent = 'agent_member' AND message_id = 'own-3' AND finished_at > 0", bool
    )
    assert (await gate.ask("member", "count", "c1"))["got"] == [1, *wanted]
    positions = await gate.rows("SELECT position FROM channel_message ORDER BY position")
    assert [row[0] for row in positions] == list(range(1, len(wanted) + 2))
