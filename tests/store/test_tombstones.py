"""What agents spawned and is gone leaves no name for good; all other tombstones stay."""

from typing import Any

import pytest

from controlplane.store import retention
from controlplane.store.retention import Retention
from controlplane.store.store import Store
from controlplane.store.tables import AgentRow, ChangeTargetRow, CommonUsageRow, ResourceRow, TurnRow
from controlplane.store.unit import Unit
from tests.store.test_retention import DAY, NOW, left, put, sweeper, turn

pytestmark = pytest.mark.anyio
OLD = NOW - 8 * DAY


def resource(name: str, deleted_at: float | None = OLD, **more: Any) -> dict[str, Any]:
    kept = {"kind": "Agent", "namespace": "d", "name": name, "uid": f"uid-{name}", "labels": "{}", "spec": "{}"}
    times = {"created_at": 1.0, "updated_at": 1.0, "deleted_at": deleted_at}
    return kept | {"revision": 1, "generation": 1, "owner": None} | times | more


async def test_only_what_nothing_speaks_of_is_forgotten(store: Store) -> None:
    """Kept is what lives, is young, runs, has turns or children, is a fleet's place, or was wanted by a change.

    So is who has labels and used something, which budgets of these labels count.
    """
    await put(
        store,
        ResourceRow,
        resource("gone"),
        resource("alive", None),
        resource("young", NOW - DAY),
        resource("runs"),
        resource("turns"),
        resource("parent"),
        resource("child", None, owner="uid-parent"),
        resource("orphan", owner="uid-gone"),
        resource("place", ordinal=0, template="t"),
        resource("wanted"),
        resource("channel", kind="Channel"),
        resource("paid", labels='{"tier":"free"}'),
        resource("free", labels='{"tier":"free"}'),
        resource("spent"),
    )
    key = {"namespace": "d", "hour": int(NOW) // 3600, "effect": "", "connection": "", "fleet": ""}
    await put(store, CommonUsageRow, *({**key, "agent": it, "turns": 1} for it in ("paid", "spent")))
    await put(store, AgentRow, {"uid": "uid-runs", "namespace": "d", "name": "runs", "changed_at": 1.0})
    await put(store, TurnRow, turn("t", "uid-turns", NOW - DAY))
    target = {"change_id": "chg_1", "kind": "Agent", "namespace": "d", "name": "wanted", "generation": 1}
    await put(store, ChangeTargetRow, target)
    await sweeper(store).sweep(NOW)
    kept = {"alive", "young", "runs", "turns", "parent", "child", "place", "wanted", "channel", "paid"}
    assert await left(store, ResourceRow, "name") == kept


async def test_the_walk_goes_on_where_it_was(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sweep looks at some names, across namespaces, and begins again behind the last one."""
    monkeypatch.setattr(retention, "ROWS_MAX", 10)
    monkeypatch.setattr(retention, "NAMES_ROUNDS_MAX", 1)
    many = [resource(f"a{n:02}", None if n % 2 else OLD, namespace=f"n{n // 9}") for n in range(35)]
    await put(store, ResourceRow, *many)
    sweep: Retention = sweeper(store)
    for _ in range(4):
        await sweep.sweep(NOW)
    assert len(await left(store, ResourceRow, "name")) == 17
    assert await store.write(Unit().raw("UPDATE resource SET deleted_at = ?", [OLD]))
    for _ in range(3):
        await sweep.sweep(NOW)
    assert await left(store, ResourceRow, "name") == set()
