"""Code, hosts, and the inside of agents, on the records alone."""

from typing import cast

import pytest
from sqlmodel import select

from controlplane.operations.living import code, hosts, inspection
from controlplane.store.store import Store
from controlplane.store.tables import AwaitRow, CodeRow, DeadLetterRow, InboxRow, TimerRow
from schemas.base import digest
from schemas.calls import CodePutInput, Empty, Named
from schemas.ports import GatePort
from schemas.problem import Refusal
from tests.living import world

pytestmark = pytest.mark.anyio
FILES = {"echo.py": "class Echo:\n    pass\n"}


async def test_code_is_stored_once_under_its_digest(store: Store) -> None:
    """The same files again answer the same, and leave one row that holds what the digest says."""
    put = code.handlers(store)["code.put"]
    answers = [await put(world.call("code.put"), CodePutInput(files=FILES)) for _ in range(2)]
    assert answers[0] == answers[1]
    assert answers[0].digest == digest(FILES)
    rows = await store.read(lambda session: session.exec(select(CodeRow)).all())
    assert [(row.digest, row.files) for row in rows] == [(digest(FILES), '{"echo.py":"class Echo:\\n    pass\\n"}')]


async def test_a_dry_run_checks_code_and_stores_nothing(quick_store: Store) -> None:
    """Good code is previewed, bad code is refused as it would be for real."""
    put = code.handlers(quick_store)["code.put"]
    dry = world.call("code.put", dry_run=True)
    preview = await put(dry, CodePutInput(files=FILES, dry_run=True))
    assert digest(FILES) in preview.would[0]
    with pytest.raises(Refusal):
        await put(dry, CodePutInput(files={"echo.py": "class"}, dry_run=True))
    assert await quick_store.read(lambda session: session.exec(select(CodeRow)).all()) == []


async def test_a_suspended_agent_is_seen_from_the_inside(store: Store) -> None:
    """State, inbox, awaits, timers and dead letters come from the records; nothing keeps it awake."""
    row = {"state_digest": "sha256:1", "version": 3, "epoch": 2, "stopped": 1}
    uid = await world.agent(store, "echo", state='{"seen": 3}', **row)
    await world.turn(store, uid, 9, outcome="parked", finished_at=None)
    since = {"since": world.NOW, "until": world.NOW + 60}
    await world.add(store, AwaitRow, await_id="aw_1", agent=uid, kind="ask", target="default/other", **since)
    await world.add(
        store, AwaitRow, await_id="aw_0", agent=uid, kind="sleep", target="", outcome="slept", resolved_at=1.0, **since
    )
    await world.add(
        store,
        TimerRow,
        agent=uid,
        name="tick",
        version=1,
        fired=0,
        due_at=world.NOW,
        data="null",
        cron="0 9 * * *",
        zone="UTC",
    )
    await world.add(
        store, InboxRow, agent=uid, message_id="m", trigger="message", body="{}", accepted_at=world.NOW, attempts=0
    )
    letter = {"namespace": "default", "name": "echo", "message_id": "m0", "body": "{}", "at": world.NOW}
    await world.add(store, DeadLetterRow, agent=uid, reason="HANDLER_ERROR", detail="it raised", **letter)
    inspect = inspection.handlers(store, cast(GatePort, None))["agents.inspect"]
    seen = await inspect(world.call("agents.inspect"), Named(name="echo"))
    assert (seen.state, seen.state_bytes, seen.turns, seen.epoch, seen.inbox) == ({"seen": 3}, 11, 3, 2, 1)
    assert (seen.running, seen.host, seen.why_awake) == ("turn_009", None, None)
    assert [(w.await_id, w.on) for w in seen.waiting_on] == [("aw_1", "default/other")]
    assert [(t.name, t.cron, t.zone, t.missed) for t in seen.timers] == [("tick", "0 9 * * *", "UTC", "fire_once")]
    assert [(d.message_id, d.reason) for d in seen.dead_letters] == [("m0", "HANDLER_ERROR")]


async def test_hosts_of_other_namespaces_are_not_shown(store: Store) -> None:
    """Serving hosts are shown to who reaches their namespace, warm ones to who reaches all, ended ones to nobody."""
    lease = {"lease_until": world.NOW + 5}
    await world.host(store, "host_warm", **lease)
    await world.host(store, "host_mine", namespace="default", digest="sha256:1", **lease)
    await world.host(store, "host_late", namespace="default", digest="sha256:1", lease_until=world.NOW - 5)
    await world.host(store, "host_theirs", namespace="elsewhere", digest="sha256:1", **lease)
    await world.host(store, "host_gone", ended_at=world.NOW, **lease)
    await world.agent(store, "echo", owner="host_mine")
    list_hosts = hosts.handlers(store)["hosts.list"]
    mine = await list_hosts(world.call("hosts.list", world.operator("ops")), Empty())
    assert {item.host_id: (item.state, item.agents) for item in mine.items} == {
        "host_mine": ("serving", 1),
        "host_late": ("lost", 0),
    }
    everything = await list_hosts(world.call("hosts.list"), Empty())
    assert [(item.host_id, item.state) for item in everything.items if item.namespace is None] == [
        ("host_warm", "warm")
    ]
    assert len(everything.items) == 4
