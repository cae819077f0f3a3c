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


def _strays(table: str, column: str, keeper: str, only: str = "") -> str:
    """How many records of a table name what is not there; `only` those of them that hold.

    An index gives each name once, however many records there are of it.
    """
    first = f"SELECT MIN(x.{column}) FROM {table} x WHERE x.{column} > "  # noqa: S608
    return (
        f"WITH RECURSIVE named(it) AS ({first}''{only} UNION ALL SELECT ({first}named.it{only}) FROM named"  # noqa: S608
        f" WHERE named.it IS NOT NULL) SELECT '' AS namespace, named.it AS name, NULL AS since, (SELECT COUNT(*)"
        f" FROM {table} x WHERE x.{column} = named.it{only}) AS more FROM named"
        f" WHERE named.it IS NOT NULL AND NOT EXISTS (SELECT 1 FROM {keeper} k WHERE k.uid = named.it)"
    )


def _left(table: str, what: str, only: str = "") -> Check:
    """Records of a running side whose agent is not there."""
    return Check(
        f"agent.left.{table}",
        "wrong",
        "Agent",
        _strays(table, "agent", "agent", only),
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
    Check(  # what takes children away does not look at these again
        "scope.missed",
        "wrong",
        "Agent",
        "SELECT a.namespace, a.name, s.ended_at AS since, a.scope AS more FROM agent a LEFT JOIN scope s"
        " ON s.scope_id = a.scope WHERE a.scope > '' AND (s.scope_id IS NULL OR s.cleared_at IS NOT NULL)",
        "agent {namespace}/{name} is there, and its scope {more} has ended and is noted as empty, or is gone",
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
        _strays("subscription", "channel", "channel"),
        "{more} subscriptions of a channel that is gone, {name}",
        "system.status",
        "shows how the installation is; tell who runs it",
        named=False,
        whole=True,
    ),
    Check(
        "membership.left",
        "wrong",
        "Channel",
        "SELECT c.namespace, c.name, m.joined_at AS since, m.name AS more FROM membership m JOIN channel c"
        " ON c.uid = m.channel WHERE m.left_position IS NULL AND NOT EXISTS (SELECT 1 FROM subscription s"
        " WHERE s.channel = m.channel AND s.agent = m.agent)",
        "{more} is kept as a member of {namespace}/{name}, and reads nothing there",
        "channels.members",
        "shows the members",
    ),
    Check(
        "queued.left",
        "wrong",
        "Channel",
        _strays("queued", "channel", "channel"),
        "{more} places in a queue that is gone, {name}",
        "system.status",
        "shows how the installation is; tell who runs it",
        named=False,
        whole=True,
    ),
    Check(  # of what is taken from a queue, the first goes first
        "queued.empty",
        "wrong",
        "Channel",
        "SELECT c.namespace, c.name, NULL AS since, (SELECT MIN(q.position) FROM queued q WHERE q.channel = c.uid)"
        " AS more FROM channel c WHERE c.mode = 'queue' AND EXISTS (SELECT 1 FROM queued e WHERE e.channel = c.uid)"
        " AND NOT EXISTS (SELECT 1 FROM channel_message m WHERE m.channel = c.uid AND m.position ="
        " (SELECT MIN(f.position) FROM queued f WHERE f.channel = c.uid))",
        "the first place in the queue {namespace}/{name}, {more}, has no message",
        "channels.list",
        "shows the channels",
        named=False,
    ),
    Check(
        "delayed.overdue",
        "late",
        "Message",
        "SELECT d.namespace, d.name, d.due_at AS since, d.message_id AS more FROM delayed d"
        " WHERE d.cancelled_at IS NULL AND d.due_at < :grace",
        "message {more} waits for its time to go to {namespace}/{name}, and its time has come",
        "channels.delayed",
        "shows what waits for its time",
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
    Check(
        "route.poll_failing",
        "late",
        "Route",
        "SELECT r.namespace, r.name, NULL AS since, w.name AS more FROM resource r JOIN resource w ON w.owner = r.uid"
        " AND w.deleted_at IS NULL JOIN agent a ON a.uid = w.uid WHERE r.kind = 'Route' AND r.deleted_at IS NULL"
        """ AND r.spec LIKE '%"poll":{%' AND a.state LIKE '%"failing":{%'""",
        "the poll of route {namespace}/{name} fails",
        "routes.get",
        "shows since when, and why",
    ),
    _left("inbox", "messages"),
    _left("timer", "timers"),
    _left("subscription", "subscriptions"),
    _left("feedback_watch", "watches"),
    _left("replay", "replays"),
    _left("state_chunk", "pieces of state"),
    _left("workspace_file", "files"),
    _left("awaiting", "open awaits", " AND x.resolved_at IS NULL"),
    _left("turn", "open turns", " AND x.finished_at IS NULL"),
    _left("membership", "open memberships", " AND x.left_position IS NULL"),
)
