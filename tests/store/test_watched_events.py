"""Who watches the log shares its reading, and what nobody watches is not written of."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from controlplane.effects.reading import Reader
from controlplane.mesh.events import IN_VAIN_MAX, Events
from controlplane.operations import watches
from controlplane.store.store import Store
from controlplane.store.unit import Unit

pytestmark = pytest.mark.anyio
AGENT = "INSERT INTO agent (uid, namespace, name, generation, epoch, version, stopped, changed_at)"
WATCHERS = 50


class _Counted(Reader):
    """A gate's reader that counts."""

    read = 0

    def rows(self, sql: str, *params: Any) -> list[tuple[Any, ...]]:
        self.read += 1
        return super().rows(sql, *params)


class _Looked:
    """A look at the log, by a gate that remembers what it would commit."""

    def __init__(self, store: Store) -> None:
        self.reader, self.units = _Counted(store.url), list[Sequence[Any]]()
        self.events = Events(self.reader, self._commit, lambda _: None, time.time, 100)

    def _commit(self, kind: str, rows: Sequence[Any], done: Callable[[str, str], None], order: int) -> None:
        self.units.append(rows)

    def look(self) -> int:
        """How many statements it took."""
        before = self.reader.read
        self.events.look()
        return self.reader.read - before


async def _happens(store: Store, type_: str, many: int = 1) -> None:
    unit = Unit()
    for _ in range(many):
        unit.event(type_, kind="Channel", namespace="default", name="job", now=time.time(), data={})
    assert await store.write(unit)


async def test_looking_costs_by_what_happened_and_not_by_who_watches(store: Store) -> None:
    """Two statements for fifty places at one event, one when nothing is new, and no write until one is due."""
    unit, now = Unit(), time.time()
    filtered = {"types": ["work.*"], "kind": None, "name": None, "own": False}
    watched = [{"feedback": filtered, "debounce_s": 0.0, "batch_max": 1}]
    for n in range(WATCHERS):
        unit.raw(f"{AGENT} VALUES (?, 'default', ?, 1, 0, 0, 0, 0)", [f"agent_{n}", f"a{n}"], 1)
        watches.set_up(unit, f"agent_{n}", "default", watched, now)
    assert await store.write(unit)
    looked = _Looked(store)
    try:
        await _happens(store, "other.thing")
        assert (looked.look(), looked.look(), looked.units) == (2, 1, [])
        await _happens(store, "other.thing", IN_VAIN_MAX)
        while looked.look() > 1:
            pass
        assert len(looked.units) == WATCHERS
        assert all(len(rows) == 1 for rows in looked.units)
    finally:
        looked.events.end()
        looked.reader.close()
