"""The statements of questions to people: awaits of kind `question`. As in `statements`.

What was asked stands in the journal; the await says until when, and who answered.
"""

from controlplane.store.batching import Many

ANSWER = Many(
    "UPDATE awaiting SET outcome = 'answered', result = ?, resolved_at = ?, answered_by = ?"
    " WHERE await_id = ? AND kind = 'question' AND resolved_at IS NULL"
)
EXPIRED_EVENT = Many(
    "INSERT INTO event (type, time, kind, namespace, name, turn_id, data)"
    " SELECT 'question.expired', ?, 'Agent', a.namespace, a.name, w.turn_id, ?"
    " FROM awaiting w JOIN agent a ON a.uid = w.agent"
    " WHERE w.await_id = ? AND w.resolved_at = ? AND w.outcome = 'timeout'"
)
QUESTION = (
    "SELECT a.namespace, a.name, w.turn_id, j.body, w.outcome, w.result, w.resolved_at, w.answered_by"
    " FROM awaiting w JOIN agent a ON a.uid = w.agent JOIN journal j ON j.turn_id = w.turn_id"
    " AND j.branch = w.branch AND j.position = w.position WHERE w.await_id = ? AND w.kind = 'question'"
)
