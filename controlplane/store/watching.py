"""The statements of what agents watch: batches of channels, places in the feedback log. As in `statements`."""

from controlplane.store.batching import Many

OLDEST_WAITING = "SELECT accepted_at FROM channel_message WHERE channel = ? AND position > ? ORDER BY position LIMIT 1"
NEXT_OF_CHANNEL = (
    "SELECT position, body FROM channel_message WHERE channel = ? AND position > ? ORDER BY position LIMIT ?"
)
PLACES = (  # so many, behind one; each with the last event of its namespace
    "SELECT w.agent, w.watch, w.position, w.told, w.since, w.filter, w.debounce_s, w.batch_max, a.namespace, a.name,"
    " COALESCE((SELECT MAX(e.cursor) FROM event e WHERE e.namespace = a.namespace), 0)"
    " FROM feedback_watch w JOIN agent a ON a.uid = w.agent"
    " WHERE (w.agent, w.watch) > (?, ?) ORDER BY w.agent, w.watch LIMIT ?"
)
EVENTS_AFTER = (
    "SELECT e.cursor, e.type, e.time, e.kind, e.name, e.principal, e.change_id, e.turn_id, e.data,"
    " (SELECT t.agent FROM turn t WHERE t.turn_id = e.turn_id) FROM event e"
    " WHERE e.namespace = ? AND e.cursor > ? ORDER BY e.cursor LIMIT ?"
)
PLACE_MOVE = Many(
    "UPDATE feedback_watch SET position = ?, told = told + ? WHERE agent = ? AND watch = ? AND position = ?"
)
