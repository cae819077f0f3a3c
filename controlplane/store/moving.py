"""The statements of moving agents and emptying hosts. As in `statements`."""

PLACE = "UPDATE agent SET placement = ?, changed_at = ? WHERE uid = ?"
DRAIN = "UPDATE host SET draining_since = ? WHERE host_id = ? AND ended_at IS NULL AND draining_since IS NULL"
EVENT_OF_HOST = (
    "INSERT INTO event (type, time, kind, namespace, name, principal, data) VALUES (?, ?, 'Host', '', ?, ?, ?)"
)
EVENT_OF_NODE = (
    "INSERT INTO event (type, time, kind, namespace, name, principal, data) VALUES (?, ?, 'Plane', '', 'plane', ?, ?)"
)
ALL_CLOSED = "SELECT key, value FROM meta WHERE key > 'node.closed.' AND key < 'node.closed/'"
# A node that is closed: since when it is emptied, or '' while its agents are moved from it one by one.
CLOSE = "INSERT INTO meta (key, value) VALUES (?, '') ON CONFLICT (key) DO NOTHING"
EMPTY = (
    "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
    " WHERE meta.value = ''"
)
OPEN = "DELETE FROM meta WHERE key = ?"
CLOSED_PREFIX = "node.closed."
# How nodes of Ray that live are called, by Ray's ids.
ALL_NAMED = "SELECT key, value FROM meta WHERE key > 'node.name.' AND key < 'node.name/'"
NAME = "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
UNNAME = "DELETE FROM meta WHERE key = ?"
NAME_PREFIX = "node.name."


def closed_key(node: str) -> str:
    """Under which it is recorded that a node takes no agents."""
    return CLOSED_PREFIX + node


def name_key(node_id: str) -> str:
    """Under which it is recorded how a node is called."""
    return NAME_PREFIX + node_id
