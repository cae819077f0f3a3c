"""Statements that make messages of a removed agent dead letters, and a dead letter a message again, in one unit."""

TAKE = "DELETE FROM dead_letter WHERE id = ?"
TO_INBOX = (
    "INSERT INTO inbox (agent, message_id, trigger, body, accepted_at, attempts, key, rank)"
    " SELECT uid, ?, ?, ?, ?, 0, ?, ? FROM agent WHERE namespace = ? AND name = ?"
)
OF_REMOVED = (  # what was of a queue is of that queue's namespace, whoever had it
    "INSERT INTO dead_letter (agent, namespace, name, message_id, body, reason, detail, turn_id, at, trigger, channel)"
    " SELECT agent, COALESCE((SELECT c.namespace FROM channel c WHERE c.uid = inbox.channel), ?),"
    " COALESCE((SELECT c.name FROM channel c WHERE c.uid = inbox.channel AND c.namespace <> ?), ?),"
    " message_id, body, 'TARGET_NOT_FOUND', 'the agent was deleted', NULL, ?,"
    " COALESCE((SELECT 'queue' FROM channel c WHERE c.uid = inbox.channel), trigger),"
    " (SELECT c.name FROM channel c WHERE c.uid = inbox.channel) FROM inbox"
    " WHERE agent = ? AND trigger IN ('message', 'reply', 'batch')"
)
