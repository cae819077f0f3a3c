"""A large state through turns, the death of its host, and the end of its agent, on both databases."""

import pytest

from tests.gate.running import running

pytestmark = pytest.mark.anyio
SOURCE = """
from pydantic import BaseModel
from ray_runtime import Agent


class Shelf(BaseModel):
    pages: list[str] = []


class Hoarder(Agent):
    state: Shelf

    async def on_message(self, turn, envelope):
        what = envelope.data["what"]
        if what == "fill":
            self.state.pages = [f"{n} {turn.random()} " * 25 for n in range(envelope.data["pages"])]
        elif what == "mark":
            self.state.pages[3] = envelope.data["mark"]
        return [len(self.state.pages), self.state.pages[3][:20] if self.state.pages else ""]
"""
CHUNKS = "SELECT hash FROM state_chunk WHERE agent = 'agent_hoarder'"


async def test_a_turn_writes_what_it_changed(database_url: str) -> None:
    """One page of a thousand changes few pieces; another host gets all; what is small, or gone, has none."""
    async with running(database_url) as gate:
        code = await gate.code(SOURCE)
        uid = await gate.agent("hoarder", code, "Hoarder")
        await gate.ask("hoarder", {"what": "fill", "pages": 1_200}, "m1")
        before = {row[0] for row in await gate.rows(CHUNKS)}
        assert len(before) > 10
        assert await gate.ask("hoarder", {"what": "mark", "mark": "here"}, "m2") == [1_200, "here"]
        after = {row[0] for row in await gate.rows(CHUNKS)}
        assert 1 <= len(after - before) <= 6
        named = (await gate.rows("SELECT state, chunks FROM agent WHERE uid = :it", it=uid))[0]
        assert (named[0], set(named[1].split())) == (None, after)
        gate.hosts[0].kill()
        gate.host()
        assert await gate.ask("hoarder", {"what": "look"}, "m3") == [1_200, "here"]
        await gate.ask("hoarder", {"what": "fill", "pages": 5}, "m4")
        assert await gate.rows(CHUNKS) == []
        await gate.ask("hoarder", {"what": "fill", "pages": 1_200}, "m5")
        assert len(await gate.rows(CHUNKS)) > 10
        await gate.client.control("remove", uid, {})
        assert await gate.rows(CHUNKS) == []
