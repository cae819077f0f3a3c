"""What befell the installation lately, in `system.status`."""

import time
from typing import Any

import pytest

from controlplane.operations.incidents import LOOKED_AT, TOLD, WORDS, lately
from controlplane.store.store import Store
from controlplane.store.unit import Unit
from schemas.principal import Principal
from schemas.records import Incident

pytestmark = pytest.mark.anyio
EVERYWHERE, SOMEWHERE = (Principal("p", "viewer", reach) for reach in (("*",), ("default",)))
DATA: dict[str, dict[str, Any]] = {
    "plane.started": {"version": "1"},
    "gate.started": {"pid": 7, "node": "n"},
    "ray.started": {"pid": 7},
    "placer.started": {"pid": 7},
    "host.lost": {"reason": "its connection ended"},
    "storage.recovered": {"reason": "STORAGE_FULL", "cause": "no room", "since": "noon"},
    "clock.moved": {"by_s": -3600.4},
}


async def _happened(store: Store, *events: tuple[str, dict[str, Any]]) -> None:
    unit = Unit()
    for kind, data in events:
        unit.event(kind, kind="Plane", namespace="", name="h1", now=time.time(), data=data)
    assert await store.write(unit)


async def _told(store: Store, who: Principal = EVERYWHERE) -> list[Incident]:
    return await store.read(lambda session: lately(session, who))


async def test_each_kind_of_incident_is_told_in_a_sentence(store: Store) -> None:
    """Newest first, with what its event knows; a host that was lost while no gate was there has a reason too."""
    assert set(DATA) == set(WORDS)
    await _happened(store, *DATA.items(), ("host.lost", {}), ("host.retired", {}))
    told = await _told(store)
    assert [it.type for it in told] == ["host.lost", *reversed(DATA)]
    assert "h1 was lost: it had ended when a gate was started" in told[0].text
    assert "moved by -3600 s" in told[1].text
    assert "since noon: no room" in told[2].text
    assert "h1 was lost: its connection ended" in told[3].text
    assert all("{" not in it.text for it in told)


async def test_incidents_are_few_and_of_the_newest_records(quick_store: Store) -> None:
    """At most ten, from the newest records; who does not reach all namespaces is told nothing of the installation."""
    await _happened(quick_store, *[("plane.started", {})] * (TOLD + 1))
    assert len(await _told(quick_store)) == TOLD
    assert await _told(quick_store, SOMEWHERE) == []
    await _happened(quick_store, *[("host.retired", {})] * LOOKED_AT)
    assert await _told(quick_store) == []
