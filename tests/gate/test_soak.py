"""A long run of everything at once while gate and hosts die; STEWARD_SEED and STEWARD_SOAK_S set its seed, length."""

import asyncio
import os
import random
import signal
import time
from typing import Any

import pytest

from schemas.problem import Refusal
from tests.gate.running import RunningGate, running
from tests.gate.zoo import SOURCE

pytestmark = [pytest.mark.anyio, pytest.mark.soak]
SEED = int(os.environ.get("STEWARD_SEED", "20261126"))
SOAK_S = float(os.environ.get("STEWARD_SOAK_S", "5"))


async def _said(gate: RunningGate, name: str, data: Any, message_id: str, ask_until: float = 0.0) -> None:
    """Say it until it was heard."""
    while True:
        try:
            await gate.send(name, data, message_id, ask_until)
        except Refusal:
            await asyncio.sleep(0.05)
        else:
            return


async def _killing(gate: RunningGate, dice: random.Random, until: float) -> None:
    """Kill, stop and terminate, and put back."""
    while time.monotonic() < until:
        await asyncio.sleep(dice.uniform(0.2, 1.2))
        victim = dice.random()
        if victim < 0.4:
            gate.kill()
            gate.start()
        else:
            host = gate.hosts[-1 - dice.randrange(2)]
            host.send_signal(signal.SIGKILL if victim < 0.8 else signal.SIGSTOP)
            gate.host()
        for host in gate.hosts[:-4]:
            host.kill()


async def test_everything_at_once_while_everything_dies(database_url: str) -> None:
    """Questions are answered once, channels are read in order, transfers add up, and nothing is left open."""
    dice = random.Random(SEED)
    async with running(database_url, hosts=2, lease_s=2.0, turn_attempts_max=50) as gate:
        code = await gate.code(SOURCE)
        accounts = [f"account-{n}" for n in range(8)]
        for name in accounts:
            await gate.agent(name, code, "Account", suspend_after_ms=dice.choice([0, 50, 5000]))
        await gate.agent("echo", code, "Echo", suspend_after_ms=10)
        askers = [f"asker-{n}" for n in range(4)]
        for name in askers:
            await gate.agent(name, code, "Asker", suspend_after_ms=dice.choice([0, 100, 5000]))
        members = [await gate.agent(f"member-{n}", code, "Member", suspend_after_ms=10) for n in range(2)]
        await gate.channel("news", *members)
        await gate.agent("publisher", code, "Publisher")
        end = time.monotonic() + SOAK_S
        amounts, asked, published = dict.fromkeys(accounts, 0), [], 0
        killing = asyncio.create_task(_killing(gate, dice, end))
        n = 0
        while time.monotonic() < end:
            n += 1
            source, target = dice.sample(accounts, 2)
            amounts[source] -= n
            amounts[target] += n
            await _said(gate, source, {"to": target, "amount": n}, f"t{n}")
            if n % 30 == 0:
                data = {"whom": "echo", "what": n, "sleep": dice.uniform(0, 0.1)}
                await _said(gate, dice.choice(askers), data, f"q{n}", time.time() + 600)
                asked.append(n)
            if n % 20 == 0:
                await _said(gate, "publisher", 5, f"p{n}")
                published += 1
        await killing
        gate.kill()
        gate.start()
        gate.host()
        await gate.until("SELECT 1 FROM inbox WHERE trigger <> 'timer'", lambda rows: not rows, 120)
        answers = await gate.rows("SELECT await_id, outcome FROM awaiting WHERE kind = 'operator'")
        assert sorted(answers) == sorted((f"q{n}", "answered") for n in asked)
        assert await gate.rows("SELECT * FROM awaiting WHERE resolved_at IS NULL") == []
        assert await gate.rows("SELECT * FROM turn WHERE finished_at IS NULL OR outcome <> 'committed'") == []
        assert await gate.rows("SELECT reason, detail FROM dead_letter") == []
        for n in range(2):
            got = (await gate.ask(f"member-{n}", "count", f"mc{n}", 60))["got"]
            assert got == list(range(5)) * published
        for name in accounts:
            assert (await gate.ask(name, "count", f"ac{name}", 60))["seen"] == amounts[name]
