"""The statements of channels that come and go, and of who was a member of which when. As in `statements`.

A channel is named by namespace and name, as whoever writes knows it, so that one unit may make it and use it.
"""

from zlib import crc32

# Positions go on where a channel of the name that is gone had come to: a cursor of then passes nothing in silence. That
# is kept for all names of a namespace, in so many places: a name may begin further on than its own had come.

PLACES = 256
BEGINS = "COALESCE((SELECT CAST(b.value AS BIGINT) FROM meta b WHERE b.key = ?), 1)"
CAME_TO = (
    "INSERT INTO meta (key, value) SELECT ?, CAST(next_position AS TEXT) FROM channel WHERE uid = ?"
    " AND next_position > 1 ON CONFLICT (key) DO UPDATE SET value = excluded.value"
    " WHERE CAST(meta.value AS BIGINT) < CAST(excluded.value AS BIGINT)"
)


def place_of(namespace: str, name: str) -> str:
    """Where it is kept how far channels of a name have come."""
    return f"positions/{namespace}/{crc32(name.encode()) % PLACES}"


# Made by first use: declared and running in one unit, unless the name is taken or the namespace has enough of them.

MAKE = (
    "INSERT INTO resource (kind, namespace, name, uid, labels, spec, revision, generation, created_at, updated_at)"
    " SELECT 'Channel', ?, ?, ?, '{}', ?, 1, 1, ?, ?"
    " WHERE NOT EXISTS (SELECT 1 FROM channel WHERE namespace = ? AND name = ?) AND"
    " (SELECT COUNT(*) FROM (SELECT 1 FROM channel WHERE namespace = ? LIMIT ?) AS counted) < ?"
    " ON CONFLICT (kind, namespace, name) DO UPDATE SET uid = excluded.uid, labels = excluded.labels,"
    " spec = excluded.spec, revision = resource.revision + 1, generation = resource.generation + 1,"
    " created_at = excluded.created_at, updated_at = excluded.updated_at, deleted_at = NULL, owner = NULL,"
    " ordinal = NULL, template = NULL WHERE resource.deleted_at IS NOT NULL"
)
COUNT = "SELECT COUNT(*) FROM (SELECT 1 FROM channel WHERE namespace = ? LIMIT ?) AS counted"
MAKE_RUN = (
    "INSERT INTO channel (uid, namespace, name, next_position, retention_s, backlog_max, attempts_max, ephemeral,"  # noqa: S608
    f" used_at) SELECT uid, namespace, name, {BEGINS}, ?, ?, ?, 1, ? FROM resource WHERE uid = ? ON CONFLICT DO NOTHING"
)
MADE_EVENT = (
    "INSERT INTO event (type, time, kind, namespace, name, principal, turn_id, data)"
    " SELECT 'resource.created', ?, 'Channel', ?, ?, ?, ?, ? FROM resource WHERE uid = ?"
)

# Members: what was published from the one position on, and before the other, was accepted while they were

JOIN = {
    "now": "INSERT INTO subscription (channel, agent, position, since)"
    " SELECT c.uid, a.uid, c.next_position - 1, ? FROM channel c, agent a"
    " WHERE c.namespace = ? AND c.name = ? AND a.uid = ? ON CONFLICT (channel, agent) DO NOTHING",
    "beginning": "INSERT INTO subscription (channel, agent, position, since)"
    " SELECT c.uid, a.uid, COALESCE((SELECT MIN(m.position) FROM channel_message m WHERE m.channel = c.uid),"
    " c.next_position) - 1, ? FROM channel c, agent a"
    " WHERE c.namespace = ? AND c.name = ? AND a.uid = ? ON CONFLICT (channel, agent) DO NOTHING",
    "cursor": "INSERT INTO subscription (channel, agent, position, since)"
    " SELECT c.uid, a.uid, CASE WHEN c.next_position <= ? THEN c.next_position - 1 ELSE ? END, ?"
    " FROM channel c, agent a"
    " WHERE c.namespace = ? AND c.name = ? AND a.uid = ? ON CONFLICT (channel, agent) DO NOTHING",
}
JOINED = (
    "INSERT INTO membership (channel, agent, name, joined_position, joined_at)"
    " SELECT s.channel, s.agent, CASE WHEN a.namespace = c.namespace THEN a.name ELSE a.namespace || '/' || a.name END,"
    " c.next_position, ? FROM channel c JOIN subscription s ON s.channel = c.uid"
    " JOIN agent a ON a.uid = s.agent WHERE c.namespace = ? AND c.name = ? AND s.agent = ? AND NOT EXISTS"
    " (SELECT 1 FROM membership m WHERE m.channel = s.channel AND m.agent = s.agent AND m.left_position IS NULL)"
)
JOINED_EVENT = (
    "INSERT INTO event (type, time, kind, namespace, name, principal, turn_id, data)"
    " SELECT 'channel.joined', ?, 'Channel', ?, ?, ?, ?, ? FROM channel c WHERE c.namespace = ? AND c.name = ?"
    " AND NOT EXISTS (SELECT 1 FROM subscription s WHERE s.channel = c.uid AND s.agent = ?)"
)
LEFT_EVENT = (
    "INSERT INTO event (type, time, kind, namespace, name, principal, turn_id, data)"
    " SELECT 'channel.left', ?, 'Channel', ?, ?, ?, ?, ? FROM subscription s WHERE s.agent = ?"
    " AND s.channel = (SELECT c.uid FROM channel c WHERE c.namespace = ? AND c.name = ?)"
)
USED = "UPDATE channel SET used_at = ? WHERE namespace = ? AND name = ? AND ephemeral = 1"
LEAVE = (
    "DELETE FROM subscription WHERE agent = ?"
    " AND channel = (SELECT c.uid FROM channel c WHERE c.namespace = ? AND c.name = ?)"
)
LEFT = (
    "UPDATE membership SET left_at = ?, left_position ="
    " (SELECT c.next_position FROM channel c WHERE c.uid = membership.channel)"
    " WHERE agent = ? AND left_position IS NULL"
    " AND channel = (SELECT c.uid FROM channel c WHERE c.namespace = ? AND c.name = ?)"
)
LEFT_ALL = (
    "UPDATE membership SET left_at = ?, left_position ="
    " (SELECT c.next_position FROM channel c WHERE c.uid = membership.channel)"
    " WHERE agent = ? AND left_position IS NULL"
)
LEFT_NOTHING = (  # a membership during which nothing was published tells nothing
    "DELETE FROM membership WHERE agent = ? AND left_position = joined_position"
    " AND channel = (SELECT c.uid FROM channel c WHERE c.namespace = ? AND c.name = ?)"
)
# Of messages that retention took, nobody asks who was to get them; of all channels some rows at a time.
FORGET_MEMBERS = """DELETE FROM membership WHERE id IN (SELECT m.id FROM channel c CROSS JOIN membership m
WHERE m.channel = c.uid AND m.left_position IS NOT NULL AND m.left_position <=
COALESCE((SELECT MIN(x.position) FROM channel_message x WHERE x.channel = c.uid), c.next_position) LIMIT ?)"""
FORGET_MEMBERS_OF = "DELETE FROM membership WHERE channel = ?"

# Ephemeral channels that are empty and unused: nothing of them is left, but the tombstone of a declared one

UNUSED = (
    "SELECT c.uid, c.namespace, c.name FROM channel c WHERE c.ephemeral = 1 AND c.used_at < ? AND c.uid > ?"
    " AND NOT EXISTS (SELECT 1 FROM channel_message m WHERE m.channel = c.uid)"
    " AND NOT EXISTS (SELECT 1 FROM subscription s WHERE s.channel = c.uid)"
    " AND NOT EXISTS (SELECT 1 FROM delayed d WHERE d.kind = 'Channel' AND d.namespace = c.namespace"
    " AND d.name = c.name AND d.cancelled_at IS NULL) ORDER BY c.uid LIMIT ?"
)
VANISH = (
    "UPDATE resource SET deleted_at = ?, updated_at = ?, revision = revision + 1"
    " WHERE uid = ? AND deleted_at IS NULL AND EXISTS"
    " (SELECT 1 FROM channel c WHERE c.uid = resource.uid AND c.ephemeral = 1 AND c.used_at < ?)"
    " AND NOT EXISTS (SELECT 1 FROM channel_message m WHERE m.channel = resource.uid)"
    " AND NOT EXISTS (SELECT 1 FROM subscription s WHERE s.channel = resource.uid)"
    " AND NOT EXISTS (SELECT 1 FROM delayed d WHERE d.kind = 'Channel' AND d.namespace = resource.namespace"
    " AND d.name = resource.name AND d.cancelled_at IS NULL)"
)
VANISH_RUN = "DELETE FROM channel WHERE uid = ?"
VANISH_LABELS = "DELETE FROM label WHERE kind = 'Channel' AND namespace = ? AND name = ?"
VANISH_WHOLLY = (
    "DELETE FROM resource WHERE uid = ? AND NOT EXISTS (SELECT 1 FROM change_target t"
    " WHERE t.kind = 'Channel' AND t.namespace = resource.namespace AND t.name = resource.name)"
)
TELLING = frozenset((MADE_EVENT, JOINED_EVENT, LEFT_EVENT))
