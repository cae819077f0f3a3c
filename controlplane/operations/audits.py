"""The checks of `system.doctor`: queries for records that nothing refers to, or that should have ended by now.

Each answers rows of namespace, name, since, and one word more. Records that a reconciler or a sweep is about to
take away are left out: `grace` is a moment before which that should have been done. Records of agents that are gone
belong to no namespace any more, so only who reaches all of them sees those (`whole`).
"""

from dataclasses import dataclass
from typing import Literal

GRACE_S = 120.0


@dataclass(frozen=True)
class Check:
    """One check: its query, what its rows are, what it says of one, and the operation that shows or mends it."""

    name: str
    weight: Literal["wrong", "late"]
    kind: str
    query: str
    detail: str
    operation: str
    why: str
    named: bool = True  # whether the operation takes namespace and name; else none
    whole: bool = False


def _left(table: str, what: str) -> Check:
    """Records of a running side whose agent is not there."""
    return Check(
        f"agent.left.{table}",
        "wrong",
        "Agent",
        f"SELECT '' AS namespace, x.agent AS name, NULL AS since, COUNT(*) AS more FROM {table} x"  # noqa: S608
        " WHERE x.agent IS NOT NULL AND NOT EXISTS (SELECT 1 FROM agent a WHERE a.uid = x.agent) GROUP BY x.agent",
        "{more} " + what + " of an agent that is gone, {name}",
        "system.status",
        "shows how the installation is; tell who runs it",
        named=False,
        whole=True,
    )


CHECKS: tuple[Check, ...] = (
    Check(
        "scope.left",
        "late",
        "Agent",
        "SELECT a.namespace, a.name, s.ended_at AS since, s.scope_id AS more FROM scope s JOIN agent a"
        " ON a.scope = s.scope_id WHERE s.ended_at < :grace AND s.cleared_at IS NULL",
        "agent {namespace}/{name} is there, and its scope {more} has ended",
        "agents.delete",
        "proposes to delete it",
    ),
    Check(
        "scope.ownerless",
        "wrong",
        "Agent",
        "SELECT s.namespace, s.name, s.opened_at AS since, s.scope_id AS more FROM scope s WHERE s.ended_at IS NULL"
        " AND NOT EXISTS (SELECT 1 FROM agent a WHERE a.uid = s.owner)",
        "scope {more} is open, and its agent {namespace}/{name} is gone",
        "agents.list",
        "shows the agents there are",
        named=False,
    ),
    Check(
        "agent.undeclared",
        "late",
        "Agent",
        "SELECT a.namespace, a.name, r.deleted_at AS since, a.uid AS more FROM agent a LEFT JOIN resource r"
        " ON r.uid = a.uid WHERE r.uid IS NULL OR r.deleted_at < :grace",
        "the running side of {namespace}/{name} is there, and it was deleted",
        "agents.list",
        "shows the agents there are",
        named=False,
    ),
    Check(
        "agent.owner_gone",
        "late",
        "Agent",
        "SELECT a.namespace, a.name, a.changed_at AS since, a.owner AS more FROM agent a LEFT JOIN host h"
        " ON h.host_id = a.owner WHERE a.owner IS NOT NULL AND a.changed_at < :grace"
        " AND (h.host_id IS NULL OR h.ended_at < :grace)",
        "agent {namespace}/{name} is held by host {more}, which is gone",
        "agents.wake",
        "brings it to another host",
    ),
    Check(
        "host.silent",
        "late",
        "Host",
        "SELECT COALESCE(h.namespace, '') AS namespace, h.host_id AS name, h.lease_until AS since, h.node AS more"
        " FROM host h WHERE h.ended_at IS NULL AND h.lease_until < :grace",
        "host {name} on node {more} has not renewed its lease",
        "hosts.list",
        "shows the hosts",
        named=False,
    ),
    Check(
        "await.overdue",
        "late",
        "Agent",
        "SELECT a.namespace, a.name, w.until AS since, w.await_id AS more FROM awaiting w JOIN agent a"
        " ON a.uid = w.agent WHERE w.resolved_at IS NULL AND w.kind <> 'gather' AND w.until < :grace"
        " AND a.stopped = 0",
        "{namespace}/{name} waits for {more}, whose time is over",
        "agents.inspect",
        "shows what it waits on",
    ),
    Check(
        "trait.left",
        "wrong",
        "Agent",
        "SELECT t.namespace, t.name, NULL AS since, t.kind AS more FROM trait t WHERE NOT EXISTS (SELECT 1"
        " FROM resource r WHERE r.kind = 'Agent' AND r.namespace = t.namespace AND r.name = t.name"
        " AND r.deleted_at IS NULL)",
        "{namespace}/{name} would be found by its {more}, and is gone",
        "discovery.find",
        "looks for it",
    ),
    Check(
        "member.left",
        "late",
        "Member",
        "SELECT m.namespace, m.name, m.expires_at AS since, m.principal AS more FROM member m"
        " WHERE m.expires_at < :grace",
        "the lease of {namespace}/{name}, registered by {more}, is over, and it was not swept",
        "discovery.unregister",
        "takes it away",
    ),
    Check(
        "subscription.left",
        "wrong",
        "Channel",
        "SELECT '' AS namespace, s.channel AS name, NULL AS since, COUNT(*) AS more FROM subscription s"
        " WHERE NOT EXISTS (SELECT 1 FROM channel c WHERE c.uid = s.channel) GROUP BY s.channel",
        "{more} subscriptions of a channel that is gone, {name}",
        "system.status",
        "shows how the installation is; tell who runs it",
        named=False,
        whole=True,
    ),
    Check(
        "guest.left",
        "late",
        "Channel",
        "SELECT c.namespace, c.name, i.expires_at AS since, a.namespace || '/' || a.name AS more FROM subscription s"
        " JOIN channel c ON c.uid = s.channel JOIN agent a ON a.uid = s.agent"
        " LEFT JOIN invitation i ON i.invitation_id = s.invitation WHERE s.invitation IS NOT NULL"
        " AND (i.invitation_id IS NULL OR i.expires_at < :grace OR i.revoked_at < :grace)",
        "{more} is a member of {namespace}/{name}, and its invitation is over",
        "channels.members",
        "shows the members",
    ),
    Check(
        "guest.uninvited",
        "wrong",
        "Channel",
        "SELECT c.namespace, c.name, s.since, a.namespace || '/' || a.name AS more FROM channel c"
        " JOIN subscription s ON s.channel = c.uid JOIN agent a ON a.uid = s.agent"
        " WHERE s.invitation IS NULL AND a.namespace <> c.namespace",
        "{more} is a member of {namespace}/{name}, and was not invited",
        "channels.members",
        "shows the members",
    ),
    Check(
        "code.diverged",
        "wrong",
        "Agent",
        "SELECT d.namespace, MIN(r.name) AS name, MIN(d.at) AS since, d.digest AS more FROM divergence d"
        " JOIN resource r ON r.kind = 'Agent' AND r.namespace = d.namespace AND r.deleted_at IS NULL"
        " AND r.spec LIKE '%' || d.digest || '%' GROUP BY d.namespace, d.digest",
        "agent {namespace}/{name} runs code {more}, of which a turn came to something else when it was run again",
        "agents.inspect",
        "shows where it differed first, and what to do",
    ),
    Check(
        "python.changed",
        "late",
        "Agent",
        "SELECT a.namespace, a.name, t.started_at AS since, p.value AS more FROM turn t JOIN agent a ON a.uid = t.agent"
        " JOIN meta p ON p.key = 'python.before' JOIN meta s ON s.key = 'python.since'"
        " WHERE t.finished_at IS NULL AND t.started_at < CAST(s.value AS DOUBLE PRECISION)",
        "a turn of agent {namespace}/{name} was begun before this installation left Python {more}. It goes on by a"
        " replay on another one, and fails with REPLAY_DIVERGED should that come to something else",
        "agents.inspect",
        "shows what it waits on",
    ),
    _left("inbox", "messages"),
    _left("timer", "timers"),
    _left("subscription", "subscriptions"),
    _left("feedback_watch", "watches"),
    _left("replay", "replays"),
    _left("state_chunk", "pieces of state"),
    _left("workspace_file", "files"),
    Check(
        "agent.left.awaiting",
        "wrong",
        "Agent",
        "SELECT '' AS namespace, w.agent AS name, NULL AS since, COUNT(*) AS more FROM awaiting w"
        " WHERE w.agent IS NOT NULL AND w.resolved_at IS NULL"
        " AND NOT EXISTS (SELECT 1 FROM agent a WHERE a.uid = w.agent) GROUP BY w.agent",
        "{more} open awaits of an agent that is gone, {name}",
        "system.status",
        "shows how the installation is; tell who runs it",
        named=False,
        whole=True,
    ),
)
