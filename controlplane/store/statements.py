"""The hot statements: the only hand-tuned SQL, the same text on SQLite and PostgreSQL.

`Many` marks what may run as one call for many jobs of a batch. What depends on an earlier statement
of another job in the same batch (positions of channels) is not marked, and runs in the jobs' order.
Every commit of a turn starts with a fence: the agent's row under its owner, epoch and version.
"""

from controlplane.store.batching import Fixed, Many
from controlplane.store.polled import POLL_EVENT
from controlplane.store.questions import EXPIRED_EVENT
from schemas.branches import FORMAT

# Ownership

ACQUIRE = Many("UPDATE agent SET owner = ?, epoch = ?, changed_at = ? WHERE uid = ? AND epoch = ? AND owner IS NULL")
RELEASE = Many("UPDATE agent SET owner = NULL, changed_at = ? WHERE uid = ? AND epoch = ? AND owner = ?")
RELEASE_EPOCH = Many("UPDATE agent SET owner = NULL, epoch = epoch + 1, changed_at = ? WHERE uid = ? AND epoch = ?")
RELEASE_HOST = "UPDATE agent SET owner = NULL, epoch = epoch + 1, changed_at = ? WHERE owner = ?"
RELEASE_ALL = "UPDATE agent SET owner = NULL, epoch = epoch + 1 WHERE owner IS NOT NULL"
FENCE = Many("UPDATE agent SET changed_at = ? WHERE uid = ? AND epoch = ? AND owner = ?")
FENCE_SUSPENDED = Many("UPDATE agent SET changed_at = ? WHERE uid = ? AND epoch = ? AND owner IS NULL")
STOP = "UPDATE agent SET stopped = 1, owner = NULL, epoch = epoch + 1, changed_at = ? WHERE uid = ? AND stopped = 0"
UNSTOP = "UPDATE agent SET stopped = 0, changed_at = ? WHERE uid = ? AND stopped = 1"

# Turns

COMMIT = Many(
    "UPDATE agent SET state = ?, chunks = ?, state_digest = ?, state_version = ?, version = version + 1, changed_at = ?"
    " WHERE uid = ? AND epoch = ? AND owner = ? AND version = ?"
)
CONSUME = Many("DELETE FROM inbox WHERE agent = ? AND message_id = ?")
CONTINUE = Many(
    "UPDATE inbox SET message_id = ?, body = ?, attempts = 0, position = NULL WHERE agent = ? AND message_id = ?"
)
ATTEMPT = Many("UPDATE inbox SET attempts = attempts + 1 WHERE agent = ? AND message_id = ?")
TURN_OPEN = Many(
    "INSERT INTO turn (turn_id, agent, message_id, trigger, message, outcome, attempts, epoch, digest, started_at,"  # noqa: S608
    " finished_at, cpu_ns, entries, state_digest, problem, pinned, format)"
    f" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, {FORMAT})"
)
TURN_GROW = Many(
    "UPDATE turn SET outcome = ?, attempts = ?, epoch = ?, cpu_ns = cpu_ns + ?, entries = ?"
    " WHERE turn_id = ? AND entries = ? AND finished_at IS NULL"
)
TURN_END = Many(
    "UPDATE turn SET outcome = ?, attempts = ?, epoch = ?, finished_at = ?, cpu_ns = cpu_ns + ?, entries = ?,"
    " state_digest = ?, problem = ?, pinned = NULL WHERE turn_id = ? AND entries = ? AND finished_at IS NULL"
)
RECORD = Many(
    "INSERT INTO journal (turn_id, branch, position, kind, body, verdict, outcome, result, recorded_at, send_by,"
    " finished_at, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
RECEIPT = Many(
    "UPDATE journal SET outcome = ?, result = ?, finished_at = ?"
    " WHERE turn_id = ? AND branch = ? AND position = ? AND outcome IS NULL"
)

# Messages

PUT = Many(
    "INSERT INTO inbox (agent, message_id, trigger, body, accepted_at, attempts) SELECT ?, ?, ?, ?, ?, 0"
    " WHERE NOT EXISTS (SELECT 1 FROM turn WHERE turn_id = ? AND finished_at IS NOT NULL)"
    " ON CONFLICT (agent, message_id) DO NOTHING"
)
DISCARD_FIRINGS = Fixed(  # it keeps its place: no firing that was given to the writer before comes behind it
    "DELETE FROM inbox WHERE agent = ? AND trigger = 'timer' AND message_id <> ? AND SUBSTR(body, 1, LENGTH(?)) = ?"
)
SEND = Many(
    "INSERT INTO inbox (agent, message_id, trigger, body, accepted_at, attempts)"
    " SELECT uid, ?, 'message', ?, ?, 0 FROM agent WHERE namespace = ? AND name = ?"
    " ON CONFLICT (agent, message_id) DO NOTHING"
)
SEND_LOST = Many(
    "INSERT INTO dead_letter (agent, namespace, name, message_id, body, reason, detail, turn_id, at)"
    " SELECT ?, ?, ?, ?, ?, 'TARGET_NOT_FOUND', ?, ?, ?"
    " WHERE NOT EXISTS (SELECT 1 FROM agent WHERE namespace = ? AND name = ?)"
)
SEND_LOST_EVENT = Many(
    "INSERT INTO event (type, time, kind, namespace, name, turn_id, data)"
    " SELECT 'message.dead_lettered', ?, 'Agent', ?, ?, ?, ?"
    " WHERE NOT EXISTS (SELECT 1 FROM agent WHERE namespace = ? AND name = ?)"
)
DEAD_LETTER = Many(
    "INSERT INTO dead_letter (agent, namespace, name, message_id, body, reason, detail, turn_id, at, trigger, channel)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
LATE_EVENT = Many(
    "INSERT INTO event (type, time, kind, namespace, name, turn_id, data) SELECT 'answer.late', ?, 'Agent', ?, ?, ?, ?"
    " FROM awaiting WHERE await_id = ? AND resolved_at IS NOT NULL"
)
EVENT = Many(
    "INSERT INTO event (type, time, kind, namespace, name, principal, change_id, turn_id, data)"
    " VALUES (?, ?, ?, ?, ?, ?, NULL, ?, ?)"
)

# Awaits: the first answer resolves one, once

AWAIT = Many(
    "INSERT INTO awaiting (await_id, agent, turn_id, branch, position, kind, target, target_agent, since, until)"
    " SELECT ?, ?, ?, ?, ?, ?, ?, (SELECT uid FROM agent WHERE namespace = ? AND name = ?), ?, ?"
    " WHERE NOT EXISTS (SELECT 1 FROM awaiting WHERE await_id = ?)"
)
AWAIT_OPERATOR = Many(
    "INSERT INTO awaiting (await_id, kind, target, target_agent, since, until) VALUES (?, 'operator', ?, ?, ?, ?)"
    " ON CONFLICT (await_id) DO NOTHING"
)
AWAIT_LOST = Many(
    "UPDATE awaiting SET outcome = 'failed', result = ?, resolved_at = ?"
    " WHERE await_id = ? AND target_agent IS NULL AND resolved_at IS NULL"
)
ANSWER_REQUEST = Many(
    "INSERT INTO inbox (agent, message_id, trigger, body, accepted_at, attempts)"
    " SELECT agent, ?, 'reply', ?, ?, 0 FROM awaiting"
    " WHERE await_id = ? AND kind = 'request' AND resolved_at IS NULL ON CONFLICT (agent, message_id) DO NOTHING"
)
ANSWER_REQUEST_LOST = Many(
    "INSERT INTO inbox (agent, message_id, trigger, body, accepted_at, attempts)"
    " SELECT agent, ?, 'reply', ?, ?, 0 FROM awaiting"
    " WHERE await_id = ? AND target_agent IS NULL ON CONFLICT (agent, message_id) DO NOTHING"
)
RESOLVE_OPERATOR = Many(
    "UPDATE awaiting SET outcome = ?, result = ?, resolved_at = ?"
    " WHERE await_id = ? AND resolved_at IS NULL AND kind = 'operator'"
)
RESOLVE = Many(
    "UPDATE awaiting SET outcome = ?, result = ?, resolved_at = ? WHERE await_id = ? AND resolved_at IS NULL"
)
JOURNAL_RESOLVED = Many(
    "UPDATE journal SET outcome = ?, result = ?, finished_at = ? WHERE outcome IS NULL AND (turn_id, branch, position)"
    " IN (SELECT turn_id, branch, position FROM awaiting"
    " WHERE await_id = ? AND resolved_at = ? AND outcome = ?"
    " AND kind IN ('ask', 'sleep', 'effect', 'question', 'compute'))"
)
CANCEL_AWAITS = Many(
    "UPDATE awaiting SET outcome = 'cancelled', resolved_at = ? WHERE turn_id = ? AND resolved_at IS NULL"
    " AND (kind <> 'effect' OR agent IS NOT NULL)"
)

# Timers

TIMER_SET = Many(
    "INSERT INTO timer (agent, name, version, fired, due_at, every_s, data, cron, zone, missed, behind)"
    " VALUES (?, ?, 1, 0, ?, ?, ?, ?, ?, ?, 0) ON CONFLICT (agent, name) DO UPDATE SET version = timer.version + 1,"
    " due_at = excluded.due_at, every_s = excluded.every_s, data = excluded.data, cron = excluded.cron,"
    " zone = excluded.zone, missed = excluded.missed, behind = 0"
)
TIMER_CANCEL = Many("DELETE FROM timer WHERE agent = ? AND name = ?")
TIMER_ADVANCE = Many(
    "UPDATE timer SET due_at = ?, behind = ?, fired = fired + ?"
    " WHERE agent = ? AND name = ? AND version = ? AND due_at = ?"
)
TIMER_END = Many("DELETE FROM timer WHERE agent = ? AND name = ? AND version = ? AND due_at = ?")

# Channels: positions are taken in the order of jobs

CHANNEL_PUT = Fixed(
    "INSERT INTO channel_message (channel, position, message_id, key, rank, body, accepted_at)"
    " SELECT uid, next_position, ?, ?, ?, ?, ? FROM channel WHERE namespace = ? AND name = ? AND NOT EXISTS"
    " (SELECT 1 FROM channel_message m WHERE m.channel = channel.uid AND m.message_id = ?)"
)
CHANNEL_BUMP = Fixed(
    "UPDATE channel SET next_position = next_position + 1 WHERE namespace = ? AND name = ? AND EXISTS"
    " (SELECT 1 FROM channel_message m WHERE m.channel = channel.uid AND m.position = channel.next_position)"
)
PUBLISH_LOST = Many(
    "INSERT INTO dead_letter (agent, namespace, name, message_id, body, reason, detail, turn_id, at, trigger, channel)"
    " SELECT ?, ?, ?, ?, ?, 'TARGET_NOT_FOUND', ?, ?, ?, 'publish', ?"
    " WHERE NOT EXISTS (SELECT 1 FROM channel WHERE namespace = ? AND name = ?)"
)
PUBLISH_LOST_EVENT = Many(
    "INSERT INTO event (type, time, kind, namespace, name, turn_id, data)"
    " SELECT 'message.dead_lettered', ?, 'Channel', ?, ?, ?, ?"
    " WHERE NOT EXISTS (SELECT 1 FROM channel WHERE namespace = ? AND name = ?)"
)
DELIVER = Fixed(
    "INSERT INTO inbox (agent, message_id, trigger, body, accepted_at, attempts, key, rank, attempts_max)"
    " SELECT ?, message_id, 'message', body, ?, 0, key, rank,"
    " (SELECT c.attempts_max FROM channel c WHERE c.uid = channel_message.channel) FROM channel_message"
    " WHERE channel = ? AND position > ? AND position <= ? ORDER BY position"
    " ON CONFLICT (agent, message_id) DO NOTHING"
)
SUBSCRIPTION_ADVANCE = Fixed("UPDATE subscription SET position = ? WHERE channel = ? AND agent = ? AND position = ?")
SUBSCRIPTION_FOLLOWS = (  # and nothing of what it passes was taken by retention meanwhile
    "UPDATE subscription SET position = ? WHERE channel = ? AND agent = ? AND position = ?"
    " AND EXISTS (SELECT 1 FROM channel_message m WHERE m.channel = ? AND m.position = ?)"
)

# Spawned agents

SPAWN = (
    "INSERT INTO resource (kind, namespace, name, uid, labels, spec, revision, generation, created_at, updated_at,"
    " deleted_at, owner) VALUES ('Agent', ?, ?, ?, COALESCE((SELECT p.labels FROM resource p WHERE p.uid = ?), '{}'),"
    " ?, ?, ?, ?, ?, NULL, ?)"
    " ON CONFLICT (kind, namespace, name) DO UPDATE SET uid = excluded.uid, labels = excluded.labels,"
    " spec = excluded.spec, revision = resource.revision + 1, generation = excluded.generation,"
    " created_at = excluded.created_at, updated_at = excluded.updated_at, deleted_at = NULL, owner = excluded.owner,"
    " ordinal = NULL, template = NULL"
    " WHERE resource.deleted_at IS NOT NULL AND resource.generation = excluded.generation - 1"
    " AND NOT EXISTS (SELECT 1 FROM agent a WHERE a.namespace = excluded.namespace AND a.name = excluded.name)"
)  # a name is taken until the running side of who had it is gone
SPAWN_AGENT = (
    "INSERT INTO agent (uid, namespace, name, generation, epoch, version, owner, stopped, state, state_digest,"
    " changed_at, fleet) SELECT c.uid, c.namespace, c.name, c.generation, 0, 0, NULL, 0, NULL, NULL, ?,"
    " COALESCE(a.fleet, f.name) FROM resource c LEFT JOIN agent a ON a.uid = c.owner"
    " LEFT JOIN resource p ON p.uid = c.owner LEFT JOIN resource f ON f.uid = p.owner AND f.kind = 'Fleet'"
    " WHERE c.uid = ? ON CONFLICT DO NOTHING"
)
SPAWN_LABELS = (
    "INSERT INTO label (kind, namespace, name, key, value) SELECT 'Agent', c.namespace, c.name, l.key, l.value"
    " FROM resource c JOIN resource p ON p.uid = c.owner AND p.deleted_at IS NULL"
    " JOIN label l ON l.kind = 'Agent' AND l.namespace = p.namespace AND l.name = p.name"
    " WHERE c.uid = ? ON CONFLICT DO NOTHING"
)
SPAWN_START = (
    "INSERT INTO inbox (agent, message_id, trigger, body, accepted_at, attempts)"
    " SELECT uid, ?, 'start', ?, ?, 0 FROM agent WHERE uid = ? ON CONFLICT (agent, message_id) DO NOTHING"
)
SPAWN_EVENT = (
    "INSERT INTO event (type, time, kind, namespace, name, principal, turn_id, data)"
    " SELECT CASE WHEN EXISTS (SELECT 1 FROM resource WHERE uid = ?) THEN 'resource.created'"
    " ELSE 'agent.spawn_refused' END, ?, 'Agent', ?, ?, ?, ?, ? WHERE 1 = 1"
)

# Removal

REMOVE_TURNS = (
    "UPDATE turn SET outcome = 'failed', finished_at = ?, problem = ? WHERE agent = ? AND finished_at IS NULL"
)
REMOVE = (
    "DELETE FROM inbox WHERE agent = ?",
    "DELETE FROM timer WHERE agent = ?",
    "DELETE FROM subscription WHERE agent = ?",
    "DELETE FROM feedback_watch WHERE agent = ?",
    "DELETE FROM replay WHERE agent = ?",
    "DELETE FROM awaiting WHERE agent = ? AND (outcome IS NULL OR outcome <> 'cancelled')",
    "DELETE FROM state_chunk WHERE agent = ?",
    "DELETE FROM workspace_file WHERE agent = ?",
    "DELETE FROM agent WHERE uid = ?",
    "UPDATE resource SET owner = NULL WHERE uid = ? AND deleted_at IS NOT NULL",
)

# Hosts

HOST_PUT = (
    "INSERT INTO host (host_id, node, pid, pid_started, namespace, digest, kept_for, lease_until, loop_lag_ms,"
    " created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, ?) ON CONFLICT (host_id) DO UPDATE SET node = excluded.node,"
    " pid = excluded.pid, pid_started = excluded.pid_started, namespace = excluded.namespace, digest = excluded.digest,"
    " lease_until = excluded.lease_until, ended_at = NULL"
)
HOST_LEASE = Many("UPDATE host SET lease_until = ?, loop_lag_ms = ? WHERE host_id = ? AND ended_at IS NULL")
HOST_END = "UPDATE host SET ended_at = ? WHERE host_id = ? AND ended_at IS NULL"

# Reading

AGENT_COLUMNS = (
    "SELECT a.uid, a.namespace, a.name, a.generation, a.epoch, a.version, a.owner, a.stopped, a.state, r.spec,"
    " a.placement, r.labels,"
    " COALESCE(a.fleet, (SELECT f.name FROM resource f WHERE f.uid = r.owner AND f.kind = 'Fleet')), a.chunks,"
    " a.state_version, a.chain, a.scope"
    " FROM agent a JOIN resource r ON r.uid = a.uid"
)
AGENT_BY_UID = AGENT_COLUMNS + " WHERE a.uid = ?"
AGENT_BY_NAME = AGENT_COLUMNS + " WHERE a.namespace = ? AND a.name = ?"
GENERATION = "SELECT generation FROM agent WHERE uid = ?"
NEXT_MESSAGE = (  # the first of the key of the most urgent one; where none is urgent, the oldest
    "SELECT message_id, trigger, body, attempts,"
    " (SELECT COUNT(*) FROM (SELECT 1 FROM inbox WHERE agent = ? LIMIT 2) AS counted), channel, key, attempts_max"
    " FROM inbox WHERE seq = COALESCE((SELECT COALESCE((SELECT MIN(e.seq) FROM inbox e WHERE e.agent = u.agent"
    " AND e.key = u.key), u.seq) FROM inbox u WHERE u.agent = ? AND u.rank IS NOT NULL ORDER BY u.rank, u.seq LIMIT 1),"
    " (SELECT MIN(f.seq) FROM inbox f WHERE f.agent = ?))"
)
MESSAGE = (
    "SELECT message_id, trigger, body, attempts, channel, key, attempts_max FROM inbox"
    " WHERE agent = ? AND message_id = ?"
)
OPEN_TURN = (
    "SELECT turn_id, message_id, digest, started_at, entries, pinned, looked_for, ends_by, COALESCE(format, 1)"
    " FROM turn WHERE agent = ? AND finished_at IS NULL"
)
TURN_BEFORE = (
    "SELECT (SELECT 1 FROM turn WHERE turn_id = ? AND finished_at IS NOT NULL),"
    " (SELECT outcome FROM awaiting WHERE await_id = ?)"
)
JOURNAL = (
    "SELECT branch, position, kind, body, outcome, result, finished_at, recorded_at, state FROM journal"
    " WHERE turn_id = ? ORDER BY position"
)
JOURNAL_LAST = (
    "SELECT position, kind, outcome FROM journal WHERE turn_id = ? AND branch = '0' ORDER BY position DESC LIMIT 1"
)
JOURNAL_BRANCHES = "SELECT branch, position, kind, body, outcome FROM journal WHERE turn_id = ? AND branch > '0'"
AWAIT_ROW = (
    "SELECT agent, turn_id, branch, position, kind, outcome, result, resolved_at FROM awaiting WHERE await_id = ?"
)
AWAIT_AT = (
    "SELECT await_id, kind, outcome, result, resolved_at, target_agent FROM awaiting"
    " WHERE agent = ? AND turn_id = ? AND branch = ? AND position = ? ORDER BY since DESC LIMIT 1"
)
AWAITS_OF_TURN = "SELECT await_id, kind, target_agent FROM awaiting WHERE turn_id = ? AND resolved_at IS NULL"
WAITS_FOR = "SELECT target_agent, await_id FROM awaiting WHERE agent = ? AND kind = 'ask' AND resolved_at IS NULL"
WAITS = (  # who waits for whom; of a member of a gathering, how many answers that still needs
    "SELECT w.agent, w.target_agent, w.await_id, w.since, a.namespace, a.name,"
    " g.needs - (SELECT COUNT(*) FROM awaiting m WHERE m.turn_id = g.turn_id AND m.branch = g.branch"
    " AND m.position < g.position AND m.position >= g.position - g.members AND m.outcome IN ('answered', 'slept'))"
    " FROM awaiting w JOIN agent a ON a.uid = w.agent LEFT JOIN awaiting g ON g.turn_id = w.turn_id"
    " AND g.branch = w.branch AND g.kind = 'gather'"
    " AND w.position < g.position AND w.position >= g.position - g.members"
    " WHERE w.kind = 'ask' AND w.resolved_at IS NULL AND w.target_agent IS NOT NULL"
)
WAITS_OF = WAITS + " AND w.agent = ?"
ASKERS = "SELECT await_id FROM awaiting WHERE target_agent = ? AND resolved_at IS NULL"
DUE_TIMERS = (
    "SELECT t.agent, t.name, t.version, t.due_at, t.every_s, t.data, t.cron, t.zone, t.missed, t.behind, a.namespace,"
    " a.name FROM timer t JOIN agent a ON a.uid = t.agent WHERE t.due_at <= ? AND a.stopped = 0"
    " ORDER BY t.due_at LIMIT 500"
)
NEXT_TIMER_OF = "SELECT name, due_at, every_s, cron, zone FROM timer WHERE agent = ? ORDER BY due_at LIMIT 1"
TIMER_OF = "SELECT name, due_at, every_s, cron, zone FROM timer WHERE agent = ? AND name = ?"
FIRINGS_WAITING = (
    "SELECT COUNT(*) FROM (SELECT 1 FROM inbox WHERE agent = ? AND trigger = 'timer'"
    " AND SUBSTR(body, 1, LENGTH(?)) = ?"
    " LIMIT ?) AS counted"
)
NEXT_TIMER = (
    "SELECT t.due_at FROM timer t JOIN agent a ON a.uid = t.agent WHERE a.stopped = 0 ORDER BY t.due_at LIMIT 1"
)
DUE_AWAITS = (
    "SELECT await_id, kind, target, agent FROM awaiting WHERE resolved_at IS NULL AND until <= ?"
    " AND kind <> 'gather' ORDER BY until LIMIT 500"
)
NEXT_AWAIT = "SELECT until FROM awaiting WHERE resolved_at IS NULL AND kind <> 'gather' ORDER BY until LIMIT 1"
ARRIVING = (  # of a message: is it known; of its agent: how many wait, up to so many, and is a turn open
    "SELECT EXISTS (SELECT 1 FROM inbox WHERE agent = ? AND message_id = ?)"
    " OR EXISTS (SELECT 1 FROM turn WHERE turn_id = ? AND finished_at IS NOT NULL),"
    " (SELECT COUNT(*) FROM (SELECT 1 FROM inbox WHERE agent = ? LIMIT ?) AS counted),"
    " EXISTS (SELECT 1 FROM turn WHERE agent = ? AND finished_at IS NULL)"
)
BACKLOG = "SELECT COUNT(*) FROM (SELECT 1 FROM inbox WHERE agent = ? LIMIT ?) AS counted"
# From agent to agent over the index, behind one: a step for each that has messages, however many, up to so many
# agents; each with its number, and with its namespace where it could go on.
WAITING_AGENTS = (
    "WITH RECURSIVE waiting(agent, number) AS (SELECT MIN(agent), 1 FROM inbox WHERE agent > ? UNION ALL"
    " SELECT (SELECT MIN(i.agent) FROM inbox i WHERE i.agent > waiting.agent), waiting.number + 1 FROM waiting"
    " WHERE waiting.agent IS NOT NULL AND waiting.number < ?)"
    " SELECT waiting.agent, waiting.number, (SELECT a.namespace FROM agent a WHERE a.uid = waiting.agent"
    " AND a.owner IS NULL AND a.stopped = 0"
    " AND NOT EXISTS (SELECT 1 FROM awaiting w WHERE w.agent = a.uid AND w.resolved_at IS NULL"
    " AND w.kind IN ('ask', 'sleep', 'effect', 'question', 'compute'))) FROM waiting WHERE waiting.agent IS NOT NULL"
)
BRANCHED_AGENTS = (  # one branch waits; another may have an answer that nobody lived to tell
    "SELECT DISTINCT agent FROM awaiting WHERE branch > '0' AND resolved_at IS NULL AND agent > ?"
    " ORDER BY agent LIMIT ?"
)
OWNED_AGENTS = "SELECT uid FROM agent WHERE owner IS NOT NULL"
AGENTS_OF = "SELECT COUNT(*) FROM (SELECT 1 FROM agent WHERE namespace = ? LIMIT ?) AS counted"
AGENT_UID = "SELECT uid FROM agent WHERE namespace = ? AND name = ?"
CHANNEL = "SELECT uid, next_position, mode, backlog_max, attempts_max FROM channel WHERE namespace = ? AND name = ?"
CHANNEL_SPEC = (
    "SELECT r.spec, c.uid FROM channel c JOIN resource r ON r.uid = c.uid WHERE c.namespace = ? AND c.name = ?"
)
CHANNEL_POSITION = (
    "SELECT m.position FROM channel c JOIN channel_message m ON m.channel = c.uid"
    " WHERE c.namespace = ? AND c.name = ? AND m.message_id = ?"
)
CODE = "SELECT files FROM code WHERE digest = ?"
LIVE_HOSTS = (
    "SELECT host_id, node, pid, pid_started, draining_since, namespace, digest, kept_for FROM host"
    " WHERE ended_at IS NULL"
)
RESOURCE = "SELECT uid, generation, deleted_at FROM resource WHERE kind = 'Agent' AND namespace = ? AND name = ?"
SUMMARY_MARK = "SELECT value FROM meta WHERE key = 'turns.summarised'"
SUMMARY_MARK_PUT = (
    "INSERT INTO meta (key, value) VALUES ('turns.summarised', ?)"
    " ON CONFLICT (key) DO UPDATE SET value = excluded.value"
)
UNSUMMARISED = (
    "SELECT a.namespace, a.name, COUNT(*), SUM(CASE WHEN t.outcome = 'failed' THEN 1 ELSE 0 END), SUM(t.entries),"
    " MIN(t.finished_at), MAX(t.finished_at) FROM turn t JOIN resource a ON a.uid = t.agent"
    " WHERE t.finished_at > ? AND t.finished_at <= ? GROUP BY a.namespace, a.name"
)
TELLING = frozenset(
    (
        EVENT,
        LATE_EVENT,
        EXPIRED_EVENT,
        POLL_EVENT,
        SEND_LOST_EVENT,
        PUBLISH_LOST_EVENT,
        SPAWN_EVENT,
        CHANNEL_PUT,
        RESOLVE_OPERATOR,
        STOP,
        UNSTOP,
    )
)  # what readers of the feedback log, of channels and of answers wait for
RECEIPT_AT = (
    "SELECT outcome, result, finished_at, recorded_at, verdict FROM journal"
    " WHERE turn_id = ? AND branch = ? AND position = ? AND kind = 'effect'"
)
