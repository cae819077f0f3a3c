"""The doctor finds what is left of what ended, says it as data, and finds nothing where all is well."""

from typing import Any

import pytest

from controlplane.operations import doctor
from controlplane.operations.audits import CHECKS
from controlplane.operations.validation import validate
from controlplane.resources.catalogue import OPERATIONS
from controlplane.store.store import Store
from controlplane.store.unit import Unit
from schemas.doctor import DoctorInput, DoctorReport
from schemas.principal import Call, Principal
from tests.living import world

pytestmark = pytest.mark.anyio
NOW = world.NOW

GUEST: list[tuple[str, list[Any]]] = [
    ("INSERT INTO channel (uid, namespace, name, next_position, retention_s) VALUES ('c', 'default', 'log', 1, 1)", []),
    ("UPDATE agent SET namespace = 'guests' WHERE name = 'echo'", []),
    ("INSERT INTO subscription (channel, agent, position, since) SELECT 'c', uid, 0, 1 FROM agent"
     " WHERE name = 'echo'", []),
]  # fmt: skip
CHANNEL = (
    "INSERT INTO channel (uid, namespace, name, next_position, retention_s, mode)"
    " VALUES ('c', 'default', 'log', 3, 1, 'queue')"
)
MISSED: dict[str, list[tuple[str, list[Any]]]] = {  # of what no sweep takes away, each way to come about
    "scope.missed": [
        ("INSERT INTO scope (scope_id, owner, namespace, name, kind, opened_at, ended_at, cleared_at)"
         " VALUES ('sc_1', 'x', 'default', 'echo', 'turn', 1, 2, 3)", []),
        ("UPDATE agent SET scope = 'sc_1' WHERE name = 'echo'", []),
    ],
    "membership.left": [
        (CHANNEL, []),
        ("INSERT INTO membership (channel, agent, name, joined_position, joined_at) SELECT 'c', uid, 'echo', 1, 1"
         " FROM agent WHERE name = 'echo'", []),
    ],
    "queued.left": [("INSERT INTO queued (channel, position) VALUES ('gone', 1)", [])],
    "queued.empty": [(CHANNEL, []), ("INSERT INTO queued (channel, position) VALUES ('c', 1), ('c', 2)", [])],
    "delayed.overdue": [
        ("INSERT INTO delayed (kind, namespace, name, message_id, body, due_at)"
         " VALUES ('Agent', 'default', 'echo', 'm', '{}', 1)", []),
    ],
    "agent.left.turn": [
        ("INSERT INTO turn (turn_id, agent, message_id, trigger, message, outcome, attempts, epoch, digest,"
         " started_at, cpu_ns, entries) VALUES ('t', 'gone', 'm', 'message', '{}', 'parked', 1, 1, 'x', 1, 0, 0)", []),
    ],
    "agent.left.membership": [
        ("INSERT INTO membership (channel, agent, name, joined_position, joined_at)"
         " VALUES ('gone', 'gone', 'left', 1, 1)", []),
    ],
}  # fmt: skip
BROKEN = MISSED | {  # what breaks the records so that a check finds it
    "scope.left": [
        ("INSERT INTO scope (scope_id, owner, namespace, name, kind, opened_at, ended_at)"
         " VALUES ('sc_1', 'x', 'default', 'echo', 'turn', 1, 2)", []),
        ("UPDATE agent SET scope = 'sc_1' WHERE name = 'echo'", []),
    ],
    "scope.ownerless": [
        ("INSERT INTO scope (scope_id, owner, namespace, name, kind, opened_at)"
         " VALUES ('sc_2', 'nobody', 'default', 'echo', 'agent', 1)", []),
    ],
    "agent.undeclared": [("UPDATE resource SET deleted_at = 1 WHERE name = 'echo'", [])],
    "agent.owner_gone": [("UPDATE agent SET owner = 'h-none', changed_at = 1 WHERE name = 'echo'", [])],
    "host.silent": [
        ("INSERT INTO host (host_id, node, pid, namespace, lease_until, loop_lag_ms, created_at)"
         " VALUES ('h-1', 'here', 1, 'default', 1, 0, 1)", []),
    ],
    "await.overdue": [
        ("INSERT INTO awaiting (await_id, agent, kind, target, since, until)"
         " SELECT 'msg_1', uid, 'ask', 'x', 1, 2 FROM agent WHERE name = 'echo'", []),
    ],
    "trait.left": [
        ("INSERT INTO trait (kind, namespace, value, name) VALUES ('capability', 'default', 'x', 'no')", []),
    ],
    "member.left": [
        ("INSERT INTO member (namespace, name, principal, labels, purpose, capabilities, address, meaning, since,"
         " expires_at) VALUES ('default', 'far', 'ann', '{}', '', '[]', '', '', 1, 2)", []),
    ],
    "subscription.left": [
        ("INSERT INTO subscription (channel, agent, position, since) SELECT 'gone', uid, 0, 1 FROM agent"
         " WHERE name = 'echo'", []),
    ],
    "code.diverged": [
        ("INSERT INTO divergence (namespace, digest, kind, agent, turn_id, problem, at) SELECT namespace,"
         f" '{world.DIGEST}', 'state', name, 'turn_1', '{{}}', 1 FROM agent WHERE name = 'echo'", []),
    ],
    "python.changed": [
        ("INSERT INTO meta (key, value) VALUES ('python.before', '2.7'), ('python.since', '5.5')", []),
        ("INSERT INTO turn (turn_id, agent, message_id, trigger, message, outcome, attempts, epoch, digest, started_at,"
         " cpu_ns, entries) SELECT 'turn_1', uid, 'm', 'message', '{}', 'parked', 1, 1, 'd', 5, 0, 1 FROM agent"
         " WHERE name = 'echo'", []),
    ],
    "route.poll_failing": [
        ("INSERT INTO resource (uid, kind, namespace, name, labels, spec, revision, generation, created_at, updated_at)"
         " VALUES ('route_1', 'Route', 'default', 'rows', '{}', '{\"source\":{\"poll\":{}}}', 1, 1, 1, 1)", []),
        ("UPDATE resource SET owner = 'route_1' WHERE name = 'echo'", []),
        ("""UPDATE agent SET state = '{"cursor":7,"failing":{"detail":"x"},"ids":[]}' WHERE name = 'echo'""", []),
    ],
    "guest.left": [*GUEST, ("UPDATE subscription SET invitation = 'inv_gone'", [])],
    "guest.uninvited": GUEST,
    "agent.left.inbox": [
        ("INSERT INTO inbox (agent, message_id, trigger, body, accepted_at, attempts)"
         " VALUES ('gone', 'm', 'message', '{}', 1, 0)", []),
    ],
    "agent.left.timer": [
        ("INSERT INTO timer (agent, name, version, fired, due_at, data) VALUES ('gone', 't', 1, 0, 1, '{}')", []),
    ],
    "agent.left.subscription": [
        ("INSERT INTO subscription (channel, agent, position, since) VALUES ('gone', 'gone', 0, 1)", []),
    ],
    "agent.left.feedback_watch": [
        ("INSERT INTO feedback_watch (agent, watch, position, told, since, filter, debounce_s, batch_max)"
         " VALUES ('gone', 'w', 0, 0, 1, '{}', 0, 1)", []),
    ],
    "agent.left.replay": [
        ("INSERT INTO replay (agent, replay_id, source, keys, asked_at, principal, change_id, position,"
         " resume_position) VALUES ('gone', 'r', 'c', 'same', 1, 'p', 'chg_1', 0, 0)", []),
    ],
    "agent.left.state_chunk": [("INSERT INTO state_chunk (agent, hash, body) VALUES ('gone', 'x', ?)", [b"x"])],
    "agent.left.workspace_file": [
        ("INSERT INTO workspace_file (agent, path, digest, executable, size, body) VALUES ('gone', 'x', 'x', 0, 1, ?)",
         [b"x"]),
    ],
    "agent.left.awaiting": [
        ("INSERT INTO awaiting (await_id, agent, kind, target, since, until)"
         " VALUES ('m', 'gone', 'ask', 'x', 1, 2)", []),
    ],
}  # fmt: skip


async def examined(store: Store, *namespaces: str, **given: Any) -> DoctorReport:
    principal = Principal("eye", "viewer", namespaces or ("*",))
    handler = doctor.handlers(store)["system.doctor"]
    answered = await handler(Call(principal, "system.doctor", NOW), DoctorInput(**given))
    assert isinstance(answered, DoctorReport)
    return answered


def test_every_check_has_a_case() -> None:
    """One that finds nothing because its query is wrong would be seen."""
    assert {it.name for it in CHECKS} == set(BROKEN)


@pytest.mark.parametrize("name", sorted(BROKEN))
async def test_what_is_broken_is_found(store: Store, name: str) -> None:
    """By its own check, with a next step that is valid; before, nothing is; other namespaces see nothing of it."""
    await world.agent(store, "echo")
    healthy = await examined(store)
    assert (healthy.healthy, healthy.findings, len(healthy.checked)) == (True, [], len(CHECKS))
    unit = Unit()
    for sql, params in BROKEN[name]:
        unit.raw(sql, params)
    assert await store.write(unit)
    report = await examined(store)
    found = [it for it in report.findings if it.check == name]
    assert len(found) == 1, report
    assert not report.healthy
    for step in found[0].next:
        validate(OPERATIONS[step.operation], step.arguments)
    assert (await examined(store, "elsewhere")).healthy
    ours = [it.check for it in (await examined(store, "default")).findings]
    assert (name in ours) is (found[0].subject.namespace == "default")


async def test_an_agent_whose_scope_is_not_even_there_is_found(store: Store) -> None:
    """Retention took the row of the scope while the child was there: nothing else would find it."""
    await world.agent(store, "echo")
    assert await store.write(Unit().raw("UPDATE agent SET scope = 'sc_gone' WHERE name = 'echo'", []))
    (found,) = (await examined(store, "default")).findings
    assert (found.check, found.weight, found.subject.name) == ("scope.missed", "wrong", "echo")
    assert (found.since, found.metadata["more"]) == (None, "sc_gone")


async def test_what_is_over_as_it_should_be_is_not_found(store: Store) -> None:
    """What history keeps of agents that are gone, and what waits for its time."""
    await world.agent(store, "echo")
    unit = Unit()
    for name in ("agent.left.turn", "agent.left.membership", "agent.left.awaiting", "delayed.overdue"):
        for sql, params in BROKEN[name]:
            unit.raw(sql, params)
    unit.raw("UPDATE turn SET finished_at = 2", []).raw("UPDATE membership SET left_position = 2, left_at = 2", [])
    unit.raw("UPDATE awaiting SET resolved_at = 2", []).raw("UPDATE delayed SET due_at = ?", [NOW + 60])
    assert await store.write(unit)
    assert (await examined(store)).findings == []


async def test_what_was_just_ended_is_not_found_yet(store: Store) -> None:
    """It is about to be taken away; and many findings of one check are cut, which is said."""
    await world.agent(store, "echo")
    unit = Unit().raw("UPDATE resource SET deleted_at = ? WHERE name = 'echo'", [NOW - 1])
    for number in range(51):
        unit.raw(
            "INSERT INTO trait (kind, namespace, value, name) VALUES ('capability', 'default', ?, 'no')", [str(number)]
        )
    assert await store.write(unit)
    report = await examined(store)
    assert {it.check for it in report.findings} == {"trait.left"}
    assert (len(report.findings), report.truncated) == (50, ["trait.left"])
