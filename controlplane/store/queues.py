"""The statements of queues, and of messages that wait for their time. As in `statements`.

A message of a queue is in `queued` until a member has it, and then in that member's inbox, with its channel and
position, until its turn is over. Its key is held by whoever has an unfinished message of it.
"""

from controlplane.store.batching import Fixed, Many

# Taken in: behind the message itself, before the position is passed

QUEUE_PUT = Fixed(
    "INSERT INTO queued (channel, position, key, own_rank, rank, ready, attempts, expires_at)"
    " SELECT m.channel, m.position, m.key, COALESCE(m.rank, 9), COALESCE(m.rank, 9), CASE WHEN m.key IS NULL THEN 1"
    " WHEN EXISTS (SELECT 1 FROM queued e WHERE e.channel = m.channel AND e.key = m.key)"
    " OR EXISTS (SELECT 1 FROM inbox i WHERE i.channel = m.channel AND i.key = m.key) THEN 0 ELSE 1 END, 0, ?"
    " FROM channel c JOIN channel_message m ON m.channel = c.uid AND m.position = c.next_position"
    " WHERE c.namespace = ? AND c.name = ? AND c.mode = 'queue'"
)
URGE = Fixed(  # what is more urgent takes along what stands before it under its key
    "UPDATE queued SET rank = ? WHERE key = ? AND ready = 1 AND rank > ?"
    " AND channel = (SELECT c.uid FROM channel c WHERE c.namespace = ? AND c.name = ? AND c.mode = 'queue')"
)

# Given to members

_MEMBER = (
    "SELECT s.agent, (SELECT COUNT(*) FROM inbox i WHERE i.agent = s.agent AND i.channel = s.channel) AS held,"
    " s.invitation FROM subscription s JOIN agent a ON a.uid = s.agent WHERE s.channel = ? AND a.stopped = 0"
    " AND (s.invitation IS NULL OR EXISTS (SELECT 1 FROM invitation n WHERE n.invitation_id = s.invitation"
    " AND n.revoked_at IS NULL AND n.expires_at > ?))"
)
MEMBERS = _MEMBER + " ORDER BY held, s.agent"
MEMBER = _MEMBER + " AND s.agent = ?"
HEADS = (
    "SELECT position, rank FROM queued WHERE channel = ? AND ready = 1 AND (expires_at IS NULL OR expires_at > ?)"
    " ORDER BY rank, position LIMIT ?"
)
OF_HELD_KEYS = (  # of each key that a member with room holds the next, as urgent as the most urgent behind it
    "SELECT q.position,"
    " (SELECT MIN(x.own_rank) FROM queued x WHERE x.channel = q.channel AND x.key = q.key) AS urgency,"
    " h.agent FROM (SELECT DISTINCT i.agent, i.key FROM inbox i WHERE i.channel = ? AND i.key IS NOT NULL"
    " AND (SELECT COUNT(*) FROM inbox o WHERE o.agent = i.agent AND o.channel = i.channel) < ?) h"
    " CROSS JOIN queued q WHERE q.channel = ? AND q.key = h.key"
    " AND q.position = (SELECT MIN(e.position) FROM queued e WHERE e.channel = ? AND e.key = h.key"
    " AND (e.expires_at IS NULL OR e.expires_at > ?)) ORDER BY urgency, q.position LIMIT ?"
)
TAKE = Fixed(
    "INSERT INTO inbox (agent, message_id, trigger, body, accepted_at, attempts, key, rank, channel, position,"
    " attempts_max) SELECT s.agent, m.message_id, 'message', m.body, ?, q.attempts, q.key, m.rank, q.channel,"
    " q.position, c.attempts_max FROM queued q JOIN channel c ON c.uid = q.channel"
    " JOIN channel_message m ON m.channel = q.channel AND m.position = q.position"
    " JOIN subscription s ON s.channel = q.channel AND s.agent = ?"
    " JOIN agent a ON a.uid = s.agent AND a.stopped = 0 WHERE q.channel = ? AND q.position = ?"
)
TAKEN = Fixed("DELETE FROM queued WHERE channel = ? AND position = ?")
QUEUE = "SELECT mode, in_flight_max FROM channel WHERE uid = ?"
WAITING_QUEUES = (
    "SELECT c.uid FROM channel c WHERE c.mode = 'queue' AND c.uid > ?"
    " AND EXISTS (SELECT 1 FROM queued q WHERE q.channel = c.uid AND (q.ready = 1 OR c.in_flight_max > 1))"
    " ORDER BY c.uid LIMIT ?"
)
BACKLOG = "SELECT COUNT(*) FROM (SELECT 1 FROM queued WHERE channel = ? LIMIT ?) AS counted"

# Finished: the next of its key is ready

PROMOTE_KEY = (
    "UPDATE queued SET ready = 1, rank = (SELECT MIN(x.own_rank) FROM queued x WHERE x.channel = queued.channel"
    " AND x.key = queued.key) WHERE channel = ? AND key = ? AND ready = 0"
    " AND position = (SELECT MIN(e.position) FROM queued e WHERE e.channel = ? AND e.key = ?)"
    " AND NOT EXISTS (SELECT 1 FROM inbox i WHERE i.channel = ? AND i.key = ? AND i.message_id <> ?)"
)
RERANK = (  # without the one that was, the first of a key is as urgent as what is left behind it
    "UPDATE queued SET rank = (SELECT MIN(x.own_rank) FROM queued x WHERE x.channel = queued.channel"
    " AND x.key = queued.key) WHERE channel = ? AND key = ? AND ready = 1"
)
PROMOTE = (
    "UPDATE queued SET ready = 1, rank = (SELECT MIN(x.own_rank) FROM queued x WHERE x.channel = queued.channel"
    " AND x.key = queued.key) WHERE ready = 0 AND channel = (SELECT c.uid FROM channel c WHERE c.namespace = ?"
    " AND c.name = ?) AND NOT EXISTS (SELECT 1 FROM queued e WHERE e.channel = queued.channel AND e.key = queued.key"
    " AND e.position < queued.position)"
    " AND NOT EXISTS (SELECT 1 FROM inbox i WHERE i.channel = queued.channel AND i.key = queued.key)"
)
PROMOTE_OF_HOLDER = (  # whatever it holds, it holds no more when the unit is over
    "UPDATE queued SET ready = 1, rank = (SELECT MIN(x.own_rank) FROM queued x WHERE x.channel = queued.channel"
    " AND x.key = queued.key) WHERE ready = 0"
    " AND channel IN (SELECT h.channel FROM inbox h WHERE h.agent = ? AND h.channel IS NOT NULL)"
    " AND NOT EXISTS (SELECT 1 FROM queued e WHERE e.channel = queued.channel AND e.key = queued.key"
    " AND e.position < queued.position)"
    " AND NOT EXISTS (SELECT 1 FROM inbox i WHERE i.channel = queued.channel AND i.key = queued.key AND i.agent <> ?)"
)

STILL_ITS = Many("UPDATE inbox SET attempts = attempts WHERE agent = ? AND message_id = ?")

# Given back, in order, by a member that leaves: all but what a turn is open for, or has gone on from. Until when it is
# good its envelope says, which no statement reads: it is marked, may be given meanwhile, and the gate notes it then.
# Where a turn had begun with it, it does not expire any more.

UNREAD = 1e15  # beyond any moment
BACK = (
    "INSERT INTO channel_message (channel, position, message_id, key, rank, body, accepted_at)"
    " SELECT channel, position, message_id, key, rank, body, accepted_at FROM inbox WHERE agent = ? AND channel ="
    " (SELECT c.uid FROM channel c WHERE c.namespace = ? AND c.name = ?) AND position IS NOT NULL AND message_id <> ?"
    " AND NOT EXISTS (SELECT 1 FROM turn o WHERE o.agent = inbox.agent AND o.message_id = inbox.message_id"
    " AND o.finished_at IS NULL) ON CONFLICT DO NOTHING",
    "INSERT INTO queued (channel, position, key, own_rank, rank, ready, attempts, expires_at)"
    " SELECT channel, position, key, COALESCE(rank, 9), COALESCE(rank, 9), CASE WHEN key IS NULL THEN 1 ELSE 0 END,"
    " attempts, CASE WHEN attempts = 0 THEN 1e15 END FROM inbox WHERE agent = ? AND channel ="
    " (SELECT c.uid FROM channel c WHERE c.namespace = ? AND c.name = ?) AND position IS NOT NULL AND message_id <> ?"
    " AND NOT EXISTS (SELECT 1 FROM turn o WHERE o.agent = inbox.agent AND o.message_id = inbox.message_id"
    " AND o.finished_at IS NULL) ON CONFLICT DO NOTHING",
    "DELETE FROM inbox WHERE agent = ? AND channel ="
    " (SELECT c.uid FROM channel c WHERE c.namespace = ? AND c.name = ?) AND position IS NOT NULL AND message_id <> ?"
    " AND NOT EXISTS (SELECT 1 FROM turn o WHERE o.agent = inbox.agent AND o.message_id = inbox.message_id"
    " AND o.finished_at IS NULL)",
)
BACK_OF_MEMBER = (
    "INSERT INTO channel_message (channel, position, message_id, key, rank, body, accepted_at)"
    " SELECT channel, position, message_id, key, rank, body, accepted_at FROM inbox WHERE agent = ?"
    " AND channel IS NOT NULL AND position IS NOT NULL AND channel IN (SELECT c.uid FROM channel c)"
    " AND NOT EXISTS (SELECT 1 FROM turn o WHERE o.agent = inbox.agent AND o.message_id = inbox.message_id"
    " AND o.finished_at IS NULL) ON CONFLICT DO NOTHING",
    "INSERT INTO queued (channel, position, key, own_rank, rank, ready, attempts, expires_at)"
    " SELECT channel, position, key, COALESCE(rank, 9), COALESCE(rank, 9), CASE WHEN key IS NULL THEN 1 ELSE 0 END,"
    " attempts, CASE WHEN attempts = 0 THEN 1e15 END FROM inbox WHERE agent = ?"
    " AND channel IS NOT NULL AND position IS NOT NULL AND channel IN (SELECT c.uid FROM channel c)"
    " AND NOT EXISTS (SELECT 1 FROM turn o WHERE o.agent = inbox.agent AND o.message_id = inbox.message_id"
    " AND o.finished_at IS NULL) ON CONFLICT DO NOTHING",
    "DELETE FROM inbox WHERE agent = ?"
    " AND channel IS NOT NULL AND position IS NOT NULL AND channel IN (SELECT c.uid FROM channel c)"
    " AND NOT EXISTS (SELECT 1 FROM turn o WHERE o.agent = inbox.agent AND o.message_id = inbox.message_id"
    " AND o.finished_at IS NULL)",
)

GIVEN_BACK = (
    "SELECT q.channel, q.position, m.body FROM queued q JOIN channel_message m ON m.channel = q.channel"
    " AND m.position = q.position WHERE q.expires_at >= ? ORDER BY q.expires_at LIMIT ?"
)
GOOD_UNTIL = Many("UPDATE queued SET expires_at = ? WHERE channel = ? AND position = ? AND expires_at >= ?")

# Too late for any member

OVERDUE = (
    "SELECT q.channel, q.position, q.key, c.namespace, c.name, m.message_id FROM queued q"
    " JOIN channel c ON c.uid = q.channel JOIN channel_message m ON m.channel = q.channel AND m.position = q.position"
    " WHERE q.expires_at <= ? ORDER BY q.expires_at LIMIT ?"
)
OVERDUE_LETTER = (
    "INSERT INTO dead_letter (agent, namespace, name, message_id, body, reason, detail, turn_id, at, trigger, channel)"
    " SELECT NULL, c.namespace, c.name, m.message_id, m.body, 'EXPIRED', ?, NULL, ?, 'publish', c.name FROM queued q"
    " JOIN channel c ON c.uid = q.channel JOIN channel_message m ON m.channel = q.channel AND m.position = q.position"
    " WHERE q.channel = ? AND q.position = ?"
)
UNQUEUE = "DELETE FROM queued WHERE channel = ?"  # of a channel that is deleted

# Delayed, and with a place of their own

DELAY = (
    "INSERT INTO delayed (kind, namespace, name, message_id, key, rank, expires_at, body, due_at)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (kind, namespace, name, message_id) DO NOTHING"
)
DELAYED = (
    "SELECT COUNT(*) FROM (SELECT 1 FROM delayed WHERE kind = ? AND namespace = ? AND name = ?"
    " AND cancelled_at IS NULL LIMIT ?) AS counted"
)
IS_DELAYED = "SELECT 1 FROM delayed WHERE kind = ? AND namespace = ? AND name = ? AND message_id = ?"
DUE_MAX = 500  # of one look
DUE = (
    "SELECT id, kind, namespace, name, message_id, key, rank, expires_at, body FROM delayed WHERE due_at <= ?"
    " AND cancelled_at IS NULL"
    " ORDER BY due_at, id LIMIT 500"
)
PUT_OFF = Many("UPDATE delayed SET due_at = ? WHERE id = ? AND cancelled_at IS NULL")
NEXT_DUE = "SELECT due_at FROM delayed WHERE cancelled_at IS NULL ORDER BY due_at, id LIMIT 1"
NO_LONGER_DELAYED = "DELETE FROM delayed WHERE id = ? AND cancelled_at IS NULL"
CANCEL_DELAYED = (  # its place is kept for as long as it may be sent again under its id
    "UPDATE delayed SET cancelled_at = ?, body = '' WHERE kind = ? AND namespace = ? AND name = ? AND message_id = ?"
    " AND cancelled_at IS NULL"
)
CANCELLED_DELAYED = (
    "DELETE FROM delayed WHERE id IN (SELECT id FROM delayed WHERE cancelled_at < ? ORDER BY cancelled_at LIMIT ?)"
)
PUT_PLACED = Many(
    "INSERT INTO inbox (agent, message_id, trigger, body, accepted_at, attempts, key, rank)"
    " SELECT ?, ?, ?, ?, ?, 0, ?, ? WHERE NOT EXISTS (SELECT 1 FROM turn WHERE turn_id = ? AND finished_at IS NOT NULL)"
    " ON CONFLICT (agent, message_id) DO NOTHING"
)
SEND_PLACED = Many(
    "INSERT INTO inbox (agent, message_id, trigger, body, accepted_at, attempts, key, rank)"
    " SELECT uid, ?, 'message', ?, ?, 0, ?, ? FROM agent WHERE namespace = ? AND name = ?"
    " ON CONFLICT (agent, message_id) DO NOTHING"
)
