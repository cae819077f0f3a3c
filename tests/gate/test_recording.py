"""A host says what it likes, as often as it likes: what is written of it is little."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from controlplane.effects.node import Bounds
from controlplane.effects.recording import HELLO_S_MIN, LEASES, Records
from schemas.wire import Lease, LeaseHello
from tests.gate.running import running
from tests.gate.test_peers import Peer, _hello

STARTED = "SELECT COUNT(*) FROM event WHERE type = 'host.started' AND name = 'flood'"


def test_a_lease_is_written_a_few_times_in_its_length() -> None:
    """However often it is renewed, and each time that an honest host does so."""
    now, written = [100.0], list[Any]()
    node: Any = SimpleNamespace(
        bounds=Bounds(lease_s=8.0),
        steady=lambda: now[0],
        clock=lambda: now[0],
        commit=lambda _kind, rows, _done, _priority: written.append(rows[0][1]),
    )
    records, host = Records(node), SimpleNamespace(host_id="h", seen=0.0, lag_ms=0.0, lease_put=0.0)
    for _ in range(800):
        now[0] += 0.01
        host.seen, host.lag_ms = now[0], now[0]
        records.lease(host)  # type: ignore[arg-type]
    assert len(written) == LEASES
    assert all(until - 8.0 == lag for until, lag, _ in written), "what it said last"
    written.clear()
    for _ in range(9):
        now[0] += 8.0 / 3
        host.seen = now[0]
        records.lease(host)  # type: ignore[arg-type]
    assert len(written) == 9


def test_hellos_are_remembered_for_as_long_as_they_count() -> None:
    """Of each host by itself, from the last that was taken."""
    now = [100.0]
    node: Any = SimpleNamespace(steady=lambda: now[0])
    records = Records(node)
    assert [records.too_soon(it) for it in ("a", "b", "a")] == [False, False, True]
    now[0] += HELLO_S_MIN
    assert [records.too_soon(it) for it in ("a", "a")] == [False, True]
    assert list(records._hellos) == ["a"]


@pytest.mark.anyio
async def test_who_says_hello_again_and_again_is_written_of_once(quick_url: str) -> None:
    """Within a second it is turned away, and keeps the connection that it has; later it is the same process still."""
    async with running(quick_url, hosts=0, lease_s=120) as gate:  # the host is this very process
        first = Peer(gate).say(_hello("flood"))
        assert await first.hear()
        for _ in range(40):
            assert await Peer(gate).say(_hello("flood")).hear() == b""
        lease = Peer(gate).say(LeaseHello("flood"), *(Lease("flood", 0.0, 0) for _ in range(1000)))
        assert await gate.rows(STARTED) == [(1,)]
        await asyncio.sleep(HELLO_S_MIN)
        again = Peer(gate).say(_hello("flood"))
        assert await again.hear(), "it is welcomed"
        while await first.hear():
            pass
        await gate.until("SELECT ended_at FROM host WHERE host_id = 'flood'", lambda rows: rows == [(None,)])
        assert await gate.rows(STARTED) == [(1,)]
        for peer in (first, lease, again):
            peer.socket.close()
        await gate.until("SELECT 1 FROM event WHERE type = 'host.lost' AND name = 'flood'", bool)
