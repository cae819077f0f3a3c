"""The gate and hosts that die, hang or wedge, with everything counted: nothing lost, nothing doubled."""

import asyncio
import random
import signal
import time
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest

from schemas.problem import Refusal
from tests.gate.running import running, true
from tests.gate.zoo import SOURCE

pytestmark = pytest.mark.anyio
GRANTS: dict[str, Any] = {
    "mandate": {"grants": [{"effect": "notes.*", "connection": None}, {"effect": "machine.read", "connection": None}]}
}


async def test_money_adds_up_over_kills_of_the_gate(database_url: str, tmp_path: Path) -> None:
    """Transfers between accounts, sent twice each, with effects, while gate and hosts are killed: the sum stays."""
    dice = random.Random(7)
    async with running(database_url, hosts=2) as gate:
        code = await gate.code(SOURCE)
        names = [f"account-{n}" for n in range(6)]
        for name in names:
            await gate.agent(name, code, "Account", suspend_after_ms=20, **GRANTS)
        amounts = dict.fromkeys(names, 0)

        async def transfer(n: int) -> None:
            source, target = dice.sample(names, 2)
            amount = dice.randint(1, 9)
            amounts[source] -= amount
            amounts[target] += amount
            data: dict[str, Any] = {"to": target, "amount": amount}
            if n % 3 == 0:
                data["note"] = str(tmp_path / "notes")
            for _ in range(2):  # a sender that does not know whether it was heard says it again
                await said(source, data, f"t{n}")

        async def said(source: str, data: dict[str, Any], message_id: str) -> None:
            limit = time.monotonic() + 60
            while True:
                try:
                    return await gate.send(source, data, message_id)
                except Refusal as refusal:  # a gate that starts on a busy machine may take longer than a call waits
                    if refusal.problem.reason != "NOT_READY" or time.monotonic() > limit:
                        raise

        for round_ in range(3):
            work = [asyncio.create_task(transfer(round_ * 60 + n)) for n in range(60)]
            await asyncio.sleep(0.15 + round_ * 0.1)
            gate.kill()
            if round_ == 1:
                gate.hosts[0].kill()
                gate.host()
            gate.start()
            await asyncio.gather(*work)
        limit = time.monotonic() + 40
        while True:
            seen = {name: (await gate.ask(name, "count", f"c{name}{time.monotonic()}", 30))["seen"] for name in names}
            if seen == amounts:
                break
            assert time.monotonic() < limit, (seen, amounts)
            await asyncio.sleep(0.2)
        doubled = await gate.rows("SELECT agent, message_id FROM turn GROUP BY agent, message_id HAVING COUNT(*) > 1")
        assert doubled == []
        assert await gate.rows("SELECT 1 FROM turn WHERE outcome <> 'committed'") == []
        ended = len(await gate.rows("SELECT 1 FROM turn"))
        told = await gate.until("SELECT data FROM event WHERE type = 'turns.summary'", lambda it: _told(it) >= ended)
        assert _told(told) == ended == len(await gate.rows("SELECT 1 FROM turn"))


def _told(rows: list[tuple[Any, ...]]) -> int:
    """The turns that summaries told of."""
    return sum(int(orjson.loads(row[0])["turns"]) for row in rows)


async def test_a_turn_whose_host_is_killed_runs_again(database_url: str, tmp_path: Path) -> None:
    """The message of a killed host is handled by another one, at the second attempt."""
    async with running(database_url) as gate:
        code = await gate.code(SOURCE)
        await gate.agent("flaky", code, "Flaky")
        marker = tmp_path / "marker"
        await gate.send("flaky", str(marker), "f1", time.time() + 60)
        await true(marker.exists)
        gate.hosts[0].kill()
        gate.host()
        await gate.until("SELECT outcome FROM awaiting WHERE await_id = 'f1'", lambda rows: rows[0][0] == "answered")
        assert await gate.rows("SELECT attempts, outcome FROM turn WHERE message_id = 'f1'") == [(2, "committed")]
        assert await gate.rows("SELECT 1 FROM event WHERE type = 'host.lost'")


async def test_a_message_that_kills_every_host_is_put_aside_and_harms_nobody_else(sqlite_url: str) -> None:
    """The killer is tried alone, then its message is a dead letter; messages of neighbours are handled once."""
    async with running(sqlite_url, turn_attempts_max=3) as gate:
        code = await gate.code(SOURCE)
        await gate.agent("killer", code, "Killer")
        names = [f"slow-{n}" for n in range(3)]
        for name in names:
            await gate.agent(name, code, "Slow")
        assert await gate.ask("killer", "live", "k0") == "alive"
        asked = [asyncio.create_task(gate.ask(name, 0.05, f"s{name}", 40)) for name in names]
        killed = asyncio.create_task(gate.ask("killer", "die", "k1", 40))
        while not killed.done():
            if gate.hosts[-1].poll() is not None:
                gate.host()
            await asyncio.sleep(0.02)
        assert killed.result()["reason"] == "TURN_FAILED"
        if gate.hosts[-1].poll() is not None:
            gate.host()
        assert await asyncio.gather(*asked) == ["done"] * 3
        assert await gate.ask("killer", "live", "k2", 40) == "alive"
        letters = await gate.rows("SELECT message_id, reason FROM dead_letter")
        assert letters == [("k1", "TURN_FAILED")]


async def test_a_wedged_loop_is_ended_and_its_neighbours_go_on(sqlite_url: str) -> None:
    """A handler that never comes back is timed out, its host ended, and only its own turn fails."""
    async with running(sqlite_url, lease_s=3.0) as gate:
        code = await gate.code(SOURCE)
        await gate.agent("echo", code, "Echo")
        limits = {"effects_max": 10, "journal_bytes_max": 10_000, "turn_s_max": 1}
        await gate.agent("wedged", code, "Wedged", limits=limits)
        await gate.until("SELECT 1 FROM turn WHERE trigger = 'start'", lambda rows: len(rows) == 2)
        wedged = asyncio.create_task(gate.ask("wedged", None, "w1", 30))
        await asyncio.sleep(0.2)
        echoed = asyncio.create_task(gate.ask("echo", 7, "e1", 30))
        await true(lambda: gate.hosts[0].poll() is not None)
        gate.host()
        assert (await wedged)["reason"] == "TURN_TIMEOUT"
        assert await echoed == 7
        assert gate.hosts[0].returncode == -signal.SIGKILL
        assert await gate.rows("SELECT attempts FROM turn WHERE message_id = 'e1'") == [(1,)]


async def test_a_host_that_was_stopped_comes_back_to_nothing(database_url: str) -> None:
    """SIGSTOP past the lease: the agents go on elsewhere, and what the old host says changes nothing."""
    async with running(database_url, lease_s=1.5) as gate:
        code = await gate.code(SOURCE)
        await gate.agent("slow", code, "Slow", suspend_after_ms=60_000)
        await gate.agent("ledger", code, "Ledger")
        await gate.agent("counter", code, "Counter", suspend_after_ms=60_000)
        assert await gate.ask("counter", 1, "m1") == 1
        gate.hosts[0].send_signal(signal.SIGSTOP)
        gate.host()
        assert await gate.ask("counter", 2, "m2", 30) == 2
        assert await gate.ask("counter", 3, "m3", 30) == 3
        assert psutil.Process(gate.hosts[0].pid).status() in ("zombie", "dead") or gate.hosts[0].poll() is not None
        assert (await gate.ask("counter", "count", "m4"))["got"] == [1, 2, 3]


async def test_a_stopped_host_is_not_waited_for_until_its_lease_runs_out(quick_url: str) -> None:
    """The kernel says that it is stopped; one that goes on at once keeps its agents."""
    async with running(quick_url, lease_s=120.0) as gate:
        code = await gate.code(SOURCE)
        await gate.agent("counter", code, "Counter", suspend_after_ms=60_000)
        assert await gate.ask("counter", 1, "m1") == 1
        gate.hosts[0].send_signal(signal.SIGSTOP)
        gate.hosts[0].send_signal(signal.SIGCONT)
        assert await gate.ask("counter", 2, "m2") == 2
        assert await gate.rows("SELECT 1 FROM event WHERE type = 'host.lost'") == []
        gate.hosts[0].send_signal(signal.SIGSTOP)
        gate.host()
        assert await gate.ask("counter", 3, "m3", 30) == 3
        await true(lambda: gate.hosts[0].poll() is not None)
        lost = await gate.rows("SELECT data FROM event WHERE type = 'host.lost'")
        assert "has been stopped for" in orjson.loads(lost[0][0])["reason"]
        assert (await gate.ask("counter", "count", "m4"))["got"] == [1, 2, 3]


async def test_sigterm_leaves_no_owner_and_everything_goes_on_after_it(database_url: str) -> None:
    """A gate that ends in good order releases its agents; the next one goes on, and parked turns too."""
    async with running(database_url) as gate:
        code = await gate.code(SOURCE)
        await gate.agent("echo", code, "Echo", suspend_after_ms=60_000)
        await gate.agent("asker", code, "Asker", suspend_after_ms=60_000)
        asked = asyncio.create_task(gate.ask("asker", {"whom": "echo", "what": "x", "sleep": 1.5}, "a1", 40))
        await gate.until("SELECT 1 FROM turn WHERE outcome = 'parked' AND entries = 2", bool)
        assert gate.gate is not None
        gate.gate.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(gate.gate.wait, 15) == 0
        assert await gate.rows("SELECT uid FROM agent WHERE owner IS NOT NULL") == []
        assert not gate.socket.exists()
        gate.start()
        assert await asked == ["x", 1]
