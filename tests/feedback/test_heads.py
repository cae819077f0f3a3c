"""One look at where channels end serves all who read them: who is woken by what, and when nobody looks."""

import asyncio

import pytest
from sqlalchemy import insert, text

from controlplane.feedback.doorbell import LocalDoorbell
from controlplane.feedback.heads import Heads
from controlplane.store.store import Store
from controlplane.store.tables import ChannelRow
from controlplane.store.unit import Unit
from schemas.problem import Refusal

pytestmark = pytest.mark.anyio
A, B = ("default", "a"), ("default", "b")


async def channels(store: Store) -> None:
    for namespace, name in (A, B):
        row = {"uid": f"channel_{name}", "namespace": namespace, "name": name, "next_position": 1, "retention_s": 1.0}
        assert await store.write(Unit().run(insert(ChannelRow).values(**row)))


async def bump(store: Store, bell: LocalDoorbell, name: str) -> None:
    sql = f"UPDATE channel SET next_position = next_position + 1 WHERE name = '{name}'"
    assert await store.write(Unit().run(text(sql)))
    bell.ring()


async def test_only_readers_of_a_channel_that_moved_are_woken(store: Store) -> None:
    """All of them, however many; what moved before they wait is not missed; without readers nobody looks."""
    bell = LocalDoorbell()
    heads = Heads(store, bell)
    await channels(store)
    with heads.reading(A), heads.reading(B), heads.reading(A):
        await asyncio.wait_for(asyncio.gather(heads.wait(A, 0, 30), heads.wait(B, 0, 30)), 10)
        marks = heads.mark(A), heads.mark(B)
        waiting = [asyncio.ensure_future(heads.wait(A, marks[0], 30)) for _ in range(50)]
        await bump(store, bell, "b")
        await asyncio.wait_for(heads.wait(B, marks[1], 30), 10)
        assert not any(it.done() for it in waiting)
        await bump(store, bell, "a")
        await asyncio.wait_for(asyncio.gather(*waiting), 10)
        await asyncio.wait_for(heads.wait(A, marks[0], 30), 10)
        mark = heads.mark(A)
        assert await store.write(Unit().run(text("DELETE FROM channel WHERE name = 'a'")))
        bell.ring()
        await asyncio.wait_for(heads.wait(A, mark, 30), 10)
        mark = heads.mark(B)
        await heads.wait(B, mark, 0.01)
        assert heads.mark(B) == mark
    assert heads._looking is None


async def test_who_waits_is_told_that_the_plane_stops(store: Store) -> None:
    """And so is who comes later."""
    bell = LocalDoorbell()
    heads = Heads(store, bell)
    await channels(store)
    with heads.reading(A):
        await asyncio.wait_for(heads.wait(A, 0, 30), 10)
        waiting = asyncio.ensure_future(heads.wait(A, heads.mark(A), 30))
        await asyncio.sleep(0)
        bell.close()
        for it in (waiting, heads.wait(A, heads.mark(A), 30)):
            with pytest.raises(Refusal, match="stopping"):
                await asyncio.wait_for(it, 10)
