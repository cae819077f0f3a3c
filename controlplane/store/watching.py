"""The statements of what agents watch: batches of channels, places in the feedback log. As in `statements`."""

from controlplane.store.batching import Many

LAGGING = (  # by each channel's index of positions: who is up to date costs nothing
    "SELECT s.channel, s.agent, s.position, c.next_position, s.debounce_s, s.batch_max, c.namespace, c.name,"
    " COALESCE((SELECT CASE WHEN a.namespace = c.namespace THEN a.name ELSE a.namespace || '/' || a.name END"
    " FROM agent a WHERE a.uid = s.agent), s.agent),"
    " (SELECT MIN(m.position) FROM channel_message m WHERE m.channel = c.uid AND m.position > s.position),"
    " s.invitation, r.replay_id, r.keys, r.until_position, r.resume_position"
    " FROM channel c CROSS JOIN subscription s"
    " LEFT JOIN replay r ON r.agent = s.agent AND r.source = s.channel AND r.ended_at IS NULL"
    " WHERE s.channel = c.uid AND s.position < c.next_position - 1 AND c.mode = 'broadcast'"
)
OLDEST_WAITING = "SELECT accepted_at FROM channel_message WHERE channel = ? AND position > ? ORDER BY position LIMIT 1"
NEXT_OF_CHANNEL = (
    "SELECT position, body FROM channel_message WHERE channel = ? AND position > ? ORDER BY position LIMIT ?"
)
PLACES = (  # so many, behind one; each with the last event of its namespace
    "SELECT w.agent, w.watch, w.position, w.told, w.since, w.filter, w.debounce_s, w.batch_max, a.namespace, a.name,"
    " COALESCE((SELECT MAX(e.cursor) FROM event e WHERE e.namespace = a.namespace), 0),"
    " r.replay_id, r.until_position, r.resume_position"
    " FROM feedback_watch w JOIN agent a ON a.uid = w.agent"
    " LEFT JOIN replay r ON r.agent = w.agent AND r.source = w.watch AND r.ended_at IS NULL"
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
