"""A folder through turns, hosts, retries and the end of its agent, on both databases."""

from typing import Any

import pytest

from tests.gate.running import RunningGate, running

pytestmark = pytest.mark.anyio
SOURCE = """
import os
from ray_runtime import Agent


class Keeper(Agent):
    async def on_message(self, turn, envelope):
        asked, folder = envelope.data, turn.workspace
        for path, text in asked.get("write", {}).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        for path in asked.get("remove", []):
            (folder / path).unlink()
        if "sleep" in asked:
            await turn.sleep(asked["sleep"])
        if "raise" in asked:
            raise ValueError("not this time")
        if "link" in asked:
            (folder / "link").symlink_to("/etc/passwd")
        return {str(it.relative_to(folder)): it.read_text() for it in sorted(folder.rglob("*")) if it.is_file()}
"""
FILES = "SELECT path, size FROM workspace_file WHERE agent = 'agent_keeper' ORDER BY path"


async def keeper(gate: RunningGate, **spec: Any) -> str:
    given = {"workspace": {"bytes_max": 1000, "files_max": 5}, "suspend_after_ms": 0, **spec}
    return await gate.agent("keeper", await gate.code(SOURCE), "Keeper", **given)


async def test_a_folder_is_there_again_at_the_next_turn(database_url: str) -> None:
    """After a suspension, on another host when the first was killed in a parked turn, until the agent is deleted."""
    async with running(database_url) as gate:
        uid = await keeper(gate)
        assert await gate.ask("keeper", {"write": {"a": "1", "d/b": "2"}}, "m1") == {"a": "1", "d/b": "2"}
        await gate.until("SELECT 1 FROM agent WHERE owner IS NULL", bool)
        assert await gate.ask("keeper", {"remove": ["a"], "write": {"d/c": "3"}}, "m2") == {"d/b": "2", "d/c": "3"}
        assert await gate.rows(FILES) == [("d/b", 1), ("d/c", 1)]
        await gate.send("keeper", {"write": {"d/b": "22"}, "sleep": 0.3}, "m3")
        await gate.until("SELECT 1 FROM turn WHERE message_id = 'm3' AND outcome = 'parked'", bool)
        gate.hosts[0].kill()
        gate.host()
        assert await gate.ask("keeper", {}, "m4") == {"d/b": "22", "d/c": "3"}
        await gate.client.control("remove", uid, {})
        assert await gate.rows(FILES) == []


async def test_what_a_failed_turn_wrote_is_undone(database_url: str) -> None:
    """On the host that has the folder still, and for what may not be kept at all."""
    async with running(database_url, turn_attempts_max=2) as gate:
        await keeper(gate, suspend_after_ms=60_000)
        kept = await gate.ask("keeper", {"write": {"a": "1"}}, "m1")
        failed = await gate.ask("keeper", {"write": {"a": "2", "b": "x"}, "raise": True}, "m2")
        assert failed["reason"] == "HANDLER_ERROR"
        assert await gate.ask("keeper", {}, "m3") == kept == {"a": "1"}
        for n, (asked, reason) in enumerate(
            [({"write": {"a": "x" * 1001}}, "LIMIT_REACHED"), ({"link": True}, "INVALID_WORKSPACE")]
        ):
            assert (await gate.ask("keeper", asked, f"r{n}"))["reason"] == reason
            assert await gate.ask("keeper", {}, f"s{n}") == kept
        assert await gate.rows(FILES) == [("a", 1)]


async def test_a_workspace_moves_with_its_agent(quick_url: str) -> None:
    """The other host has it whole."""
    async with running(quick_url, hosts=2) as gate:
        await gate.until("SELECT 1 FROM host WHERE ended_at IS NULL", lambda rows: len(rows) == 2)
        uid = await keeper(gate, suspend_after_ms=60_000)
        kept = await gate.ask("keeper", {"write": {"a": "1"}}, "m1")
        moved = await gate.client.control("migrate", uid, {"principal": "test", "warm": True})
        assert moved["moved"], moved
        assert await gate.ask("keeper", {}, "m2") == kept
