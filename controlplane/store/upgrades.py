"""The statements of upgrades: what is decided about a parked turn whose agent has other code. As in `statements`."""

PINNED = (
    "UPDATE turn SET looked_for = ?, decided = ?, ends_by = ?, differs = ?"
    " WHERE turn_id = ? AND finished_at IS NULL AND COALESCE(looked_for, 0) < ?"
)
RELEASED = "UPDATE turn SET ends_by = NULL WHERE turn_id = ? AND finished_at IS NULL"
PROVED = (
    "UPDATE turn SET looked_for = ?, decided = 'proved', ends_by = NULL, differs = NULL, digest = ?, pinned = ?"
    " WHERE turn_id = ? AND entries = ? AND finished_at IS NULL"
)
PYTHON = "SELECT value FROM meta WHERE key = 'python'"  # that gates of this database have run last
PYTHON_PUT = "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
UNMARKED = "UPDATE journal SET state = NULL WHERE turn_id = ? AND state IS NOT NULL"  # hashes of what other code kept
OVERDUE = (  # what is pinned, and shall end by now
    "SELECT t.agent FROM turn t JOIN agent a ON a.uid = t.agent"
    " WHERE t.ends_by IS NOT NULL AND t.finished_at IS NULL AND t.ends_by <= ? AND a.stopped = 0 LIMIT 500"
)
UNDECIDED = (  # a new generation waits behind a parked turn that nobody has held against it
    "SELECT i.agent FROM inbox i JOIN agent a ON a.uid = i.agent"
    " JOIN turn t ON t.agent = i.agent AND t.finished_at IS NULL"
    " WHERE i.trigger = 'start' AND i.message_id <> t.message_id AND t.outcome = 'parked' AND a.stopped = 0"
    " AND a.owner IS NULL AND COALESCE(t.looked_for, 0) < a.generation LIMIT 500"
)
