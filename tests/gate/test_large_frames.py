"""What is more than goes into one frame ends its turn, and costs no host and no neighbour."""

from typing import Any

import pytest

from controlplane.store.unit import Unit
from schemas.frames import FRAME_BYTES_MAX, JOURNAL_BYTES_MAX
from tests.gate.running import RunningGate, running

pytestmark = pytest.mark.anyio
MIB = 1_048_576
SOURCE = """
from pydantic import BaseModel
from ray_runtime import Agent


class Text(BaseModel):
    text: str = ""


class Large(Agent):
    state: Text

    async def on_message(self, turn, envelope):
        match envelope.data:
            case "gathers":
                await turn.gather(*[turn.ask("answers", n) for n in range(40)])
            case "keeps":
                self.state.text = 40 * 1_048_576 * "x"
            case "answers":
                return 40 * 1_048_576 * "x"
            case "journals":
                for _ in range(40):
                    turn.send("answers", 1_000_000 * "x")
            case "sleeps":
                await turn.sleep(3600)
        return "here"


class Answers(Agent):
    async def on_message(self, turn, envelope):
        return 1_000_000 * "x"
"""


async def agents(gate: RunningGate, **spec: Any) -> None:
    code = await gate.code(SOURCE)
    for name, cls in (("large", "Large"), ("answers", "Answers"), ("beside", "Large")):
        await gate.agent(name, code, cls, suspend_after_ms=60_000, **spec)
    assert await gate.ask("beside", "", "m-before") == "here"


async def lost(gate: RunningGate) -> list[tuple[Any, ...]]:
    return await gate.rows("SELECT name FROM event WHERE type = 'host.lost'")


async def failed(gate: RunningGate, data: str) -> dict[str, Any]:
    """The Problem of a turn that was too large; whoever is beside it goes on, on the same host."""
    found = await gate.ask("large", data, f"m-{data}", timeout_s=60)
    assert await gate.ask("beside", "", f"m-beside-{data}") == "here"
    assert await lost(gate) == []
    assert found["reason"] == "LIMIT_REACHED", found
    return dict(found["metadata"])


async def test_what_a_turn_says_is_too_large(quick_url: str) -> None:
    """A state or an answer that no frame takes fails its turn at its host, once, with a Problem that says so."""
    async with running(quick_url, state_bytes_max=100 * MIB) as gate:
        await agents(gate)
        for data in ("keeps", "answers"):
            assert (await failed(gate, data))["limit"] == "frame_bytes_max"
        assert await gate.ask("large", "", "m-after") == "here"


async def test_what_a_turn_is_told_is_too_large(quick_url: str) -> None:
    """Answers that come together, and are more than a frame takes, fail the turn that gathers them."""
    async with running(quick_url) as gate:
        await agents(gate)
        metadata = await failed(gate, "gathers")
        assert metadata["limit"] == "frame_bytes_max"
        assert metadata["bytes"] > metadata["max"] == FRAME_BYTES_MAX
        assert await gate.ask("large", "", "m-after") == "here"


async def test_what_a_turn_goes_on_with_is_too_large(quick_url: str) -> None:
    """A turn whose replay no frame takes is a dead letter; the host that was to run it stays, and the agent goes on."""
    async with running(quick_url) as gate:
        await agents(gate)
        await gate.send("large", "sleeps", "m-sleeps")
        await gate.until("SELECT 1 FROM awaiting WHERE kind = 'sleep'", bool)
        await gate.client.control("suspend", "agent_large", {})
        await gate.until("SELECT owner FROM agent WHERE name = 'large'", lambda rows: rows == [(None,)])
        first = "UPDATE journal SET outcome = 'slept', result = ?, finished_at = 1 WHERE kind = 'sleep'"
        await gate.store.write(raw(first, 17 * MIB * "x"))
        await gate.store.write(raw("UPDATE journal SET result = '\"' || result || result || '\"' WHERE kind = 'sleep'"))
        await gate.store.write(raw("UPDATE awaiting SET until = ? WHERE kind = 'sleep'", 1.0))
        await gate.client.control("wake", "agent_large", {})
        ((reason, detail),) = await gate.until("SELECT reason, detail FROM dead_letter", bool)
        assert reason == "LIMIT_REACHED"
        assert str(FRAME_BYTES_MAX) in detail
        assert await gate.ask("large", "", "m-after") == "here"
        assert await gate.ask("beside", "", "m-beside") == "here"
        assert await lost(gate) == []


async def test_a_journal_that_may_be_larger_than_a_frame(quick_url: str) -> None:
    """However much a spec allows, a turn's journal ends before its replay would not fit."""
    async with running(quick_url) as gate:
        await agents(gate, limits={"effects_max": 100, "journal_bytes_max": 64 * MIB, "turn_s_max": 60})
        assert await failed(gate, "journals") == {"limit": "journal_bytes_max", "max": JOURNAL_BYTES_MAX}


def raw(sql: str, *params: Any) -> Any:
    return Unit().raw(sql, list(params))
