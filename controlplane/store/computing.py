"""The statements of computes: functions that Ray runs for a turn which waits. As in `statements`."""

from controlplane.store.batching import Many

AWAIT = Many(
    "INSERT INTO awaiting (await_id, agent, turn_id, branch, position, kind, target, since, until, attempts)"
    " VALUES (?, ?, ?, ?, ?, 'compute', ?, ?, ?, 0)"
)
OPEN = (
    "SELECT w.await_id, w.attempts, w.runner, w.until, r.generation FROM awaiting w LEFT JOIN resource r"
    " ON r.uid = w.agent WHERE w.kind = 'compute' AND w.resolved_at IS NULL ORDER BY w.await_id"
)
SPEC = "SELECT spec FROM resource WHERE uid = ?"
ABOUT = (
    "SELECT a.uid, a.namespace, a.name, w.turn_id, w.branch, w.position, j.body, t.digest FROM awaiting w"
    " JOIN agent a ON a.uid = w.agent JOIN turn t ON t.turn_id = w.turn_id JOIN journal j"
    " ON j.turn_id = w.turn_id AND j.branch = w.branch AND j.position = w.position WHERE w.await_id = ?"
)
BEGIN = Many(
    "UPDATE awaiting SET attempts = attempts + 1, runner = ?"
    " WHERE await_id = ? AND resolved_at IS NULL AND attempts = ?"
)
