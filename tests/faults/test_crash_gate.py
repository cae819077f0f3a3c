"""kill -9 of the gate at each of its points, one after the other, under a workload with known answers."""

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import text

from controlplane.protocols.mcp_tools import offered
from controlplane.store import scopes
from controlplane.store.queues import UNREAD
from controlplane.store.unit import Unit
from schemas.connection import connection_spec
from schemas.faults import POINTS, UNITS
from schemas.posting import Placed
from schemas.problem import Refusal
from tests.conftest import SOAK
from tests.faults.history import World, said
from tests.faults.points import Arming, around, supervised
from tests.gate.computer import Computer
from tests.gate.mcp_far import Far, serving, tool
from tests.gate.running import running

log = logging.getLogger("steward.tests")
pytestmark = pytest.mark.anyio
Provoke = Callable[[World, Arming, str], Coroutine[Any, Any, None]]


async def _wait(world: World, arming: Arming, mark: str) -> None:
    """Time alone passes it."""
    await asyncio.sleep(0.2)


async def _write(world: World, arming: Arming, mark: str) -> None:
    sql = "UPDATE agent SET changed_at = changed_at WHERE name = 'stumbler'"
    await said(lambda: world.gate.store.write(Unit().run(text(sql))))


async def _stumble(world: World, arming: Arming, mark: str) -> None:
    assert await world.ask("stumbler", str(world.folder / f"stumbled-{mark}"), f"s{mark}") == "up again"


async def _spoil(world: World, arming: Arming, mark: str) -> None:
    await world.spoil(f"x{mark}")


async def _circle(world: World, arming: Arming, mark: str) -> None:
    """Two agents that ask each other."""
    names = [f"ring-{it}-{mark}" for it in "ab"]
    for name in names:
        await world.agent(name, "Circle")
    asked = await world.ask(names[0], [names[1], names[0]], f"o{mark}")
    assert "ASK_CYCLE" in str(asked), asked


async def _new_host(world: World, arming: Arming, mark: str) -> None:
    world.gate.hosts[-1].kill()


async def _ghost(world: World, arming: Arming, mark: str) -> None:
    """An owner that nobody speaks for, as an old backup would leave it."""
    sql = "UPDATE agent SET owner = 'nobody', epoch = epoch + 1 WHERE name = 'stumbler' AND owner IS NULL"
    await said(lambda: world.gate.store.write(Unit().run(text(sql))))


async def _again(world: World, arming: Arming, mark: str) -> None:
    """A message that was handled before, put into the inbox once more."""
    sql = (
        'INSERT INTO inbox (agent, message_id, "trigger", body, accepted_at, attempts) SELECT agent, message_id,'
        " \"trigger\", message, 1.0, 0 FROM turn WHERE message_id = 'n1-0' ON CONFLICT DO NOTHING"
    )
    await said(lambda: world.gate.store.write(Unit().run(text(sql))))


async def _sigterm(world: World, arming: Arming, mark: str) -> None:
    assert world.gate.gate is not None
    world.gate.gate.send_signal(signal.SIGTERM)


async def _restart(world: World, arming: Arming, mark: str) -> None:
    """A death, and then another one in the start after it."""
    world.gate.kill()


async def _stop_and_go(world: World, arming: Arming, mark: str) -> None:
    for verb in ("stop", "wake"):
        await said(lambda verb=verb: world.gate.client.control(verb, "agent_stumbler", {"principal": "test"}))  # type: ignore[misc]


async def _remove(world: World, arming: Arming, mark: str) -> None:
    uid = await world.agent(f"gone-{mark}", "Echo")
    await said(lambda: world.gate.client.control("remove", uid, {}))


async def _scope(world: World, arming: Arming, mark: str) -> None:
    """A child of a scope that is over."""
    uid, scope = await world.agent(f"child-{mark}", "Echo"), f"sc_{mark}"
    unit = Unit().raw(scopes.OPEN, [scope, "agent_stumbler", "default", "stumbler", "turn", 1.0])
    unit.raw(scopes.GIVE, [scope, uid]).raw(scopes.END, [2.0, scope])
    await said(lambda: world.gate.store.write(unit))
    await world.gate.until(f"SELECT COUNT(*) FROM agent WHERE uid = '{uid}'", lambda rows: rows[0][0] == 0)
    await world.gate.until(f"SELECT cleared_at FROM scope WHERE scope_id = '{scope}'", lambda rows: bool(rows[0][0]))


async def _move(world: World, arming: Arming, mark: str) -> None:
    """Placed on its host, and nowhere again."""
    hosts = await world.gate.rows("SELECT host_id FROM host WHERE ended_at IS NULL ORDER BY created_at DESC")
    for to in (hosts[0][0] if hosts else None, None):
        asked = {"principal": "test", "to_host": to, "warm": True}
        with contextlib.suppress(Refusal):  # the host has just gone
            await world.gate.client.control("migrate", "agent_stumbler", asked)


async def _drain(world: World, arming: Arming, mark: str) -> None:
    """The host is emptied, and another one started."""
    hosts = await world.gate.rows("SELECT host_id FROM host WHERE ended_at IS NULL ORDER BY created_at DESC")
    if hosts:
        world.gate.host()
        await said(lambda: world.gate.client.control("drain", hosts[0][0], {"principal": "test"}))


async def _close(world: World, arming: Arming, mark: str) -> None:
    """The node is closed, then emptied, and takes agents again."""
    for undo, empty in ((False, False), (False, True), (True, True)):
        asked = {"principal": "test", "undo": undo, "empty": empty}
        await said(lambda asked=asked: world.gate.client.control("drain_node", "local", asked))  # type: ignore[misc]


async def _named(world: World, arming: Arming, mark: str) -> None:
    """Another node, that a placer sees; its name is kept."""
    seen = {"node": "far", "ray_node_id": f"far-{mark}"}
    placer = Computer(world.gate.socket, f"sees-{mark}", beside=[seen])
    try:
        await world.gate.until(f"SELECT value FROM meta WHERE key = 'node.name.far-{mark}'", bool, 60)
    finally:
        await placer.close()


async def _answer(world: World, arming: Arming, mark: str) -> None:
    """A person who answers until it was heard, and is told the same each time."""
    name = f"person-{mark}"
    uid = await world.agent(name, "Person")
    asking = asyncio.ensure_future(world.ask(name, None, f"p{mark}"))
    query = f"SELECT await_id FROM awaiting WHERE agent = '{uid}' AND kind = 'question'"
    ((question_id,),) = await world.gate.until(query, bool, 60)
    given = {"question_id": question_id, "answer": "that", "principal": "ann", "dry_run": False}
    told = [await said(lambda: world.gate.client.control("answer", uid, given)) for _ in range(2)]
    assert (await asking, told[0]) == ("that", told[1])


async def _budget(world: World, name: str, action: str, effects: float) -> None:
    """So many effects of an agent, and what happens before there are more."""
    scope = {"agent": name}
    spec = orjson.dumps({"limits": {"effects": effects}, "action": action, "window": "total", "scope": scope}).decode()
    put = text(
        "INSERT INTO resource (kind, namespace, name, uid, labels, spec, revision, generation, created_at, updated_at)"
        " VALUES ('Budget', 'default', :it, :uid, '{}', :spec, 1, 1, 1.0, 1.0)"
        " ON CONFLICT (uid) DO UPDATE SET spec = excluded.spec, generation = resource.generation + 1"
    ).bindparams(it=name, uid=f"budget_{name}", spec=spec)
    await said(lambda: world.gate.store.write(Unit().run(put)))


async def _noter(world: World, name: str) -> dict[str, Any]:
    """An agent, and what it is told to do."""
    await world.agent(name, "Noter", mandate={"grants": [{"effect": "machine.read", "connection": None}]})
    return {"effect": "machine.read", "what": "memory"}


async def _spend(world: World, arming: Arming, mark: str) -> None:
    """An agent whose budget has no room for a second effect, until it has more."""
    name = f"thrifty-{mark}"
    await _budget(world, name, "pause", 1.5)
    told = await _noter(world, name)
    assert "total_bytes" in await world.ask(name, told, f"s{mark}-{name}")
    asked = asyncio.ensure_future(world.ask(name, told, f"t{mark}"))
    await world.gate.until(f"SELECT 1 FROM event WHERE type = 'agent.paused' AND name = '{name}'", bool, 60)
    await _budget(world, name, "pause", 9)
    assert "total_bytes" in await asked


async def _withhold(world: World, arming: Arming, mark: str) -> None:
    """An effect that waits for an operator, who does not come."""
    name = f"poor-{mark}"
    await _budget(world, name, "hold", 0.5)
    assert await world.ask(name, await _noter(world, name), f"w{mark}") == "BUDGET_EXCEEDED"


async def _upgrade(world: World, policy: str, mark: str) -> None:
    """A turn that is parked, while its agent gets other code, and its own again."""
    name = f"{policy.replace('_', '-')}-{mark}"
    uid = await world.agent(name, "Person")
    asking = asyncio.ensure_future(world.ask(name, None, f"u{name}"))
    query = f"SELECT await_id FROM awaiting WHERE agent = '{uid}' AND kind = 'question'"
    ((question_id,),) = await world.gate.until(query, bool, 60)
    if not await world.gate.rows("SELECT 1 FROM host WHERE ended_at IS NULL AND digest = :it", it=world.other):
        world.gate.host()
    more: dict[str, Any] = {"suspend_after_ms": 10, "upgrade": {"parked": policy}}
    for generation, code in ((2, world.other), (3, world.code)):
        await said(lambda it=(name, generation, code, "Person"): world.gate.deploy(*it, **more))  # type: ignore[misc]
        looked = f"SELECT looked_for, digest FROM turn WHERE message_id = 'u{name}'"
        there = ((generation, code),) if policy == "prove" else ((2, world.code),)
        await world.gate.until(looked, lambda rows, there=there: tuple(rows) == there, 60)
    given = {"question_id": question_id, "answer": "that", "principal": "ann", "dry_run": False}
    await said(lambda: world.gate.client.control("answer", uid, given))
    assert await asking == "that"


async def _pin(world: World, arming: Arming, mark: str) -> None:
    await _upgrade(world, "pin_until", mark)


async def _prove(world: World, arming: Arming, mark: str) -> None:
    await _upgrade(world, "prove", mark)


async def _compute(world: World, arming: Arming, mark: str) -> None:
    """A function, and a placer that has it run."""
    name, computer = f"thinker-{mark}", Computer(world.gate.socket, mark, {"thought": mark})
    await world.agent(name, "Thinker", mandate={"grants": [{"effect": "compute.run", "connection": None}]})
    try:
        assert await world.ask(name, None, f"k{mark}") == {"thought": mark}
    finally:
        await computer.close()


async def _offer(world: World, arming: Arming, mark: str) -> None:
    """A far side whose tools have not been seen, and one of them another one by the next look."""
    async with serving(Far(tools={"order": tool()})) as far:
        options = {"allow_private": True}
        spec = connection_spec({"protocol": "mcp", "endpoint": far.url, "options": options})
        put = text(
            "INSERT INTO resource (kind, namespace, name, uid, labels, spec, revision, generation, created_at,"
            " updated_at) VALUES ('Connection', 'default', :it, :uid, '{}', :spec, 1, 1, 1.0, 1.0)"
            " ON CONFLICT (uid) DO NOTHING"
        ).bindparams(it=f"shop-{mark}", uid=f"connection_{mark}", spec=spec.model_dump_json())
        await said(lambda: world.gate.store.write(Unit().run(put)))
        asked = {"namespace": "default", "name": f"shop-{mark}"}
        for description in ("Places an order", "Places two"):
            far.tools["order"] = tool(description=description)
            told: dict[str, Any] = {"trouble": "not asked yet"}
            while told["trouble"]:
                told = await said(lambda: world.gate.client.control("offers", f"connection_{mark}", asked))
            rows = await world.gate.rows("SELECT digest FROM offer WHERE connection = :it", it=f"connection_{mark}")
            assert rows == [(offered(far.tools["order"]).digest,)]


async def _overdue(world: World, arming: Arming, mark: str) -> None:
    """A message of a queue without members, which nobody has in time."""
    await world.job("forgotten", mark, f"f{mark}", Placed(expires_at=1.0))
    query = f"SELECT 1 FROM dead_letter WHERE message_id = 'f{mark}' AND reason = 'EXPIRED'"
    await world.gate.until(query, lambda rows: len(rows) == 1, 60)


async def _dated(world: World, arming: Arming, mark: str) -> None:
    """A message that a member of a queue gave back, as its statement leaves it: the envelope says it is over."""
    await world.job("forgotten", mark, f"d{mark}", Placed(expires_at=UNREAD), expires="2026-01-01T00:00:01Z")
    query = f"SELECT 1 FROM dead_letter WHERE message_id = 'd{mark}' AND reason = 'EXPIRED'"
    await world.gate.until(query, lambda rows: len(rows) == 1, 60)


async def _uninvited(world: World, arming: Arming, mark: str) -> None:
    """A guest whose invitation is no more."""
    uid, channel = await world.agent(f"guest-{mark}", "Echo"), f"channel_closed-{mark}"
    unit = Unit().raw(
        "INSERT INTO channel (uid, namespace, name, next_position, retention_s) VALUES (?, 'default', ?, 1, 60)"
        " ON CONFLICT DO NOTHING",
        [channel, f"closed-{mark}"],
    )
    unit.raw(
        "INSERT INTO subscription (channel, agent, position, since, invitation) VALUES (?, ?, 0, 1.0, 'inv_gone')"
        " ON CONFLICT DO NOTHING",
        [channel, uid],
    )
    await said(lambda: world.gate.store.write(unit))
    await world.gate.until(f"SELECT 1 FROM subscription WHERE agent = '{uid}'", lambda rows: not rows, 60)
    await world.gate.until(f"SELECT 1 FROM event WHERE type = 'invitation.ended' AND name = 'guest-{mark}'", bool, 60)


async def _expired(world: World, arming: Arming, mark: str) -> None:
    """A question whose agent is stopped, and whose message has little time."""
    name, made = f"late-{mark}", f"e{mark}"
    world.spoilt.add(made)
    uid = await world.agent(name, "Echo")
    await said(lambda: world.gate.client.control("stop", uid, {"principal": "test"}))
    body = orjson.dumps({
        "specversion": "1.0", "id": made, "source": "/operators/test", "type": "steward.message", "replyto": made,
        "subject": f"default/{name}", "time": "2026-01-01T00:00:00Z", "expires": "2026-01-01T00:00:01Z", "data": 1,
    })  # fmt: skip
    asked = (made, body, time.time() + 600, "test", b"", Placed(expires_at=1.0))
    await said(lambda: world.gate.client.publish("default", name, *asked))
    query = f"SELECT outcome, result FROM awaiting WHERE await_id = '{made}'"
    rows = await world.gate.until(query, lambda rows: bool(rows and rows[0][0]), 60)
    assert (rows[0][0], orjson.loads(rows[0][1])["reason"]) == ("failed", "EXPIRED")
    await said(lambda: world.gate.client.control("wake", uid, {"principal": "test"}))


async def _diverge(world: World, arming: Arming, mark: str) -> None:
    """Code that differs in one more way, until a replay of it has said so."""
    kind, name, n = KINDS[int(mark.rpartition("-")[2]) % len(KINDS)], f"fickle-{mark}", 0
    await world.agent(name, "Fickle")
    while not await world.gate.rows("SELECT 1 FROM divergence WHERE kind = :it", it=kind):
        await world.ask(name, kind, f"v{mark}-{n}")
        await asyncio.sleep(0.1)
        n += 1


async def _deliver(world: World, arming: Arming, mark: str) -> None:
    """A member that lags: what was published before goes to it by a delivery."""
    uid = await world.agent(f"lagging-{mark}", "Echo")
    sql = f"INSERT INTO subscription (channel, agent, position, since) VALUES ('channel_news', '{uid}', 0, 1.0)"
    await said(lambda: world.gate.store.write(Unit().run(text(sql + " ON CONFLICT DO NOTHING"))))


PROVOKED: dict[str, Provoke] = {
    "delivery": _deliver,
    "write": _write, "lease": _wait, "summary": _wait, "again": _stumble, "bury": _spoil,
    "cycle": _circle, "lost": _new_host, "host": _new_host, "ended": _new_host,
    "orphan": _ghost, "repeat": _again, "end": _sigterm, "recover": _restart, "start": _restart, "unstop": _stop_and_go,
    "stop": _stop_and_go, "remove": _remove, "scope": _scope, "cleared": _scope, "place": _move,
    "drain": _drain, "node": _close, "named": _named, "answer": _answer,
    "pause": _spend, "withhold": _withhold, "pin": _pin, "prove": _prove,
    "compute": _compute, "computed": _compute, "offers": _offer, "overdue": _overdue, "dated": _dated,
    "uninvited": _uninvited, "expired": _expired,
    "diverged": _diverge,
}  # fmt: skip
STARTING = [point for point in POINTS if point.startswith("gate.start.")]
REST = [
    it for it in POINTS if it.startswith(("gate.", "store.")) and it not in STARTING and it.split(".")[1] not in UNITS
]
GROUPS: dict[str, list[str]] = {
    "messages": ["publish", "channel", "delivery", "feedback", "acquire", "release", "write", "repeat"],
    "queues": ["dispatch", "delayed", "due", "overdue", "dated", "uninvited"],
    "turns": ["park", "commit", "again", "bury", "expire", "expired", "cycle", "timer"],
    "effects": ["intent", "receipt", "summary", "offers"],
    "computes": ["compute", "computed"],
    "hosts": ["lease", "lost", "host", "ended", "orphan"],
    "operators": ["unstop", "stop", "remove", "scope", "cleared", "answer", "pause", "withhold"],
    "moves": ["place", "drain", "node", "named"],
    "upgrades": ["pin", "prove"],
    "starts": ["recover", "end"],
    "replays": ["diverged"],
}
KINDS = ("reply", "state", "effect", "raised")


def _cases(group: str) -> list[list[str]]:
    """In a soak one unit after the other; otherwise all of a group in one go."""
    units, more = GROUPS.get(group, []), {"starts": STARTING, "rest": REST}.get(group, [])
    if SOAK:
        return [around(unit) for unit in units] + [[it] for it in more]
    return [around(*units) + more]


FIRES = frozenset(point for group in [*GROUPS, "rest"] for case in _cases(group) for point in case)
PATIENCE_S = 60


async def killed_at(world: World, arming: Arming, points: list[str], mark: str) -> None:
    """Arm the points, pass each of them, come back, and look at the history."""
    arming.arm(*points)
    limit = time.monotonic() + PATIENCE_S
    left, n = points, 0
    while left:
        assert time.monotonic() < limit, f"nobody passed {left}"
        provokes = {PROVOKED[unit] for point in left if (unit := point.split(".")[1]) in PROVOKED}
        async with asyncio.TaskGroup() as passing:
            passing.create_task(world.round())
            for provoke in provokes:
                passing.create_task(provoke(world, arming, f"{mark}-{n}"))
        left, n = arming.left(), n + 1
    await world.check()


async def each_of(url: str, folder: Path, arming: Arming, cases: list[list[str]], **bounds: Any) -> None:
    """One gate, and its deaths one after the other."""
    other = "postgresql" if url.startswith("sqlite") else "sqlite"
    async with running(url, lease_s=3.0, turn_attempts_max=8, **bounds) as gate, supervised(gate):
        world = await World(gate, folder).begin()
        for n, case in enumerate(cases):
            points = [it for it in case if not it.startswith(f"store.{other}")]
            started = time.monotonic()
            try:
                if points:
                    await killed_at(world, arming, points, str(n))
            except (AssertionError, ExceptionGroup) as error:
                raise AssertionError(f"{points}: {error!r}") from error
            log.info("%s: %.2f s", points, time.monotonic() - started)
        await world.told()


@pytest.mark.parametrize("group", [*GROUPS, "rest"])
async def test_the_gate_dies_at_each_of_its_points(quick_url: str, tmp_path: Path, arming: Arming, group: str) -> None:
    """Nothing acknowledged is lost, nothing internal happens twice, and nothing is left open."""
    await each_of(quick_url, tmp_path, arming, _cases(group), replay_one_in=1 if group == "replays" else 0)


async def test_the_gate_dies_around_its_commits_on_postgresql(
    postgresql_url: str, tmp_path: Path, arming: Arming
) -> None:
    """The same, where the writer's transaction is another process's."""
    units = ("publish", "commit", "receipt")
    cases = [
        [f"gate.{unit}.committed" for unit in units],
        [it for it in REST if it.startswith("store") and "sqlite" not in it],
    ]
    await each_of(postgresql_url, tmp_path, arming, cases)
