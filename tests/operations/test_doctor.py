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
BROKEN = {  # what breaks the records so that a check finds it
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
