"""kill -9 of the gate while something is posted: it is in its channel once, whenever that happens."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from controlplane.guard.vault import Vault
from controlplane.store.tables import SecretValueRow
from controlplane.store.unit import Unit
from schemas.connection import connection_spec
from schemas.faults import MOMENTS
from schemas.problem import Refusal
from tests.faults.points import Arming, supervised
from tests.gate.far import put
from tests.gate.process import KEY_OF_TESTS
from tests.gate.running import RunningGate, running
from tests.protocols.test_webhooks import SECRET, WEBHOOK, signed

pytestmark = pytest.mark.anyio


async def hooked(gate: RunningGate) -> None:
    """What the plane writes for a channel, a secret and a connection with a webhook."""
    await gate.channel("orders")
    nonce, ciphertext = Vault(KEY_OF_TESTS).seal("sec_s", SECRET)
    row = {"ref": "sec_s", "namespace": "default", "nonce": nonce, "ciphertext": ciphertext, "created_at": 1.0}
    unit = Unit().run(insert(SecretValueRow).values(**row, bound_to="secret_s"))
    await put(gate, unit, "Secret", "s", {"values": {"k": {"ref": "sec_s", "mac": "m"}}})
    given: dict[str, Any] = {"protocol": "http", "endpoint": "http://far.example", "options": WEBHOOK}
    spec = connection_spec({**given, "secret": {"name": "s", "key": "k"}})
    await put(gate, Unit(), "Connection", "far", spec.model_dump(mode="json"))


async def test_what_is_posted_comes_once_through_a_death(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the commit, after it, or before the answer: who posts is answered in the end, and may post again."""
    arming = Arming(tmp_path, monkeypatch)
    async with running(database_url, hosts=0) as gate, supervised(gate, hosts=0):
        await hooked(gate)
        for n, moment in enumerate(MOMENTS):
            body = b'{"n":%d}' % n
            headers = signed(body, f"w{n}")
            arming.arm(f"gate.channel.{moment}")
            answered = await gate.client.post("default", "far", headers, body)
            await arming.fired()
            again = await gate.client.post("default", "far", headers, body)
            assert (again["message_id"], again["duplicate"]) == (answered["message_id"], True)
        rows = await gate.rows("SELECT position, body FROM channel_message ORDER BY position")
        assert [row[0] for row in rows] == [1, 2, 3]
        assert [f'"n":{n}' in row[1] for n, row in enumerate(rows)] == [True] * 3
        assert await gate.rows("SELECT COUNT(*) FROM arrival") == [(3,)]


async def test_what_is_posted_before_its_channel_is_set_up_is_not_kept(quick_url: str) -> None:
    """It was declared, and its running side is not there yet: whoever posts is told to come again, not of a quota."""
    async with running(quick_url, hosts=0) as gate:
        await hooked(gate)
        await put(gate, Unit().raw("DELETE FROM channel", ()), "Channel", "orders", {})
        body, headers = b"{}", signed(b"{}", "w")
        with pytest.raises(Refusal) as refused:
            await gate.client.post("default", "far", headers, body)
        assert (refused.value.problem.reason, refused.value.problem.retry_after_s) == ("NOT_READY", 1.0)
        await gate.store.write(Unit().raw("DELETE FROM resource WHERE kind = 'Channel'", ()))
        assert not (await gate.client.post("default", "far", headers, body))["duplicate"]
