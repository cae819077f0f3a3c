"""Statements that make a dead letter a message again; the letter goes in the unit that puts it back."""

TAKE = "DELETE FROM dead_letter WHERE id = ?"
TO_INBOX = (
    "INSERT INTO inbox (agent, message_id, trigger, body, accepted_at, attempts, key, rank)"
    " SELECT uid, ?, ?, ?, ?, 0, ?, ? FROM agent WHERE namespace = ? AND name = ?"
)
