"""Which turns lost a host is known as long as they can come again, and no longer."""

import os
import signal
from pathlib import Path

import pytest
from sqlalchemy import text

from controlplane.effects.hosts import Hosts
from controlplane.store.unit import Unit
from schemas.calls import SendInput
from tests.living.conftest import Living

pytestmark = pytest.mark.anyio


@pytest.fixture
def database_url(quick_url: str) -> str:
    """On SQLite; in a soak on both."""
    return quick_url


async def test_a_deleted_agent_is_suspected_of_nothing(
    living: Living, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its turn took its host along, and was not tried again before it was deleted."""
    seen: list[Hosts] = []
    sweep = Hosts.sweep
    monkeypatch.setattr(Hosts, "sweep", lambda self: (seen.append(self), sweep(self))[1])
    uid = await living.agent("stander", "Stander")
    await living.call("agents.send", SendInput(name="stander", data=f"{tmp_path}/flag"))

    async def in_hand() -> bool:
        return bool(seen) and (tmp_path / "flag.here").exists()

    async def suspected() -> bool:
        return bool(seen[0].suspects)

    await living.until(in_hand)
    assert await living.store.write(Unit().run(text("UPDATE agent SET stopped = 1")))
    os.kill(seen[0].all()[0].pid, signal.SIGKILL)
    await living.until(suspected)
    await living.gate.control("remove", uid, {})
    assert seen[0].suspects == {}
