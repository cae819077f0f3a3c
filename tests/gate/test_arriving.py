"""Messages that come to an agent which has none: handed on as they came, in their order, and each once."""

import asyncio

import pytest

from tests.gate.running import RunningGate
from tests.gate.zoo import SOURCE

pytestmark = pytest.mark.anyio
ROUNDS = 25


async def test_messages_at_once_keep_their_order_however_awake_their_agent_is(shared: RunningGate) -> None:
    """It is suspended, is let go just now, is idle, or runs: messages are handled in turn, once each."""
    code = await shared.code(SOURCE)
    await shared.agent("ledger", code, "Ledger", suspend_after_ms=0)
    for name, stays_ms in (("sleeper", 0), ("waker", 3), ("stayer", 60_000)):
        await shared.agent(name, code, "Counter", suspend_after_ms=stays_ms)
        for n in range(ROUNDS):
            numbers = [3 * n, 3 * n + 1, 3 * n + 2]
            await asyncio.gather(*(shared.send(name, it, f"{name}-{it}") for it in numbers))
            await asyncio.sleep(0.002 * (n % 4))
        seen = await shared.ask(name, "count", f"{name}-count")
        assert seen == {"seen": 3 * ROUNDS, "started": 1, "got": list(range(3 * ROUNDS))}
    told = await shared.ask("ledger", "count", "ledger-count")
    assert sorted(told["got"]) == sorted(3 * list(range(3 * ROUNDS)))


async def test_a_message_that_is_sent_again_is_known(shared: RunningGate) -> None:
    """At once, while it waits, and after it was handled: the answer says that it is there, and it is handled once."""
    code = await shared.code(SOURCE)
    await shared.agent("repeated", code, "Member", suspend_after_ms=0)
    body = (
        b'{"specversion":"1.0","id":"r","source":"/operators/test","type":"steward.message",'
        b'"time":"2026-01-01T00:00:00Z","data":1}'
    )

    async def sent() -> bool:
        return bool((await shared.client.publish("default", "repeated", "r", body, 0.0, "test"))["duplicate"])

    await asyncio.gather(*(sent() for _ in range(5)))
    assert await sent()
    await shared.until("SELECT COUNT(*) FROM turn WHERE agent = 'agent_repeated'", lambda rows: rows[0][0] == 2)
    assert await sent()
    assert await shared.ask("repeated", "count", "repeated-count") == {"seen": 0, "started": 0, "got": [1]}
