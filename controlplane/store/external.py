"""The statements of external effects in doubt: sent again, held for an operator, settled. As in `statements`."""

from controlplane.store.batching import Many

CONNECTION = (
    "SELECT uid, generation, spec FROM resource"
    " WHERE kind = 'Connection' AND namespace = ? AND name = ? AND deleted_at IS NULL"
)
SPEC_OF = "SELECT spec FROM resource WHERE kind = 'Secret' AND namespace = ? AND name = ? AND deleted_at IS NULL"
SEALED = "SELECT nonce, ciphertext FROM secret_value WHERE ref = ?"
EFFECT_AT = (
    "SELECT body, outcome, recorded_at, send_by FROM journal"
    " WHERE turn_id = ? AND branch = ? AND position = ? AND kind = 'effect'"
)
HELD_AT = (  # the newest: what was tried again may be held again
    "SELECT await_id, since, until, outcome, result FROM awaiting"
    " WHERE turn_id = ? AND branch = ? AND position = ? AND kind = 'effect' ORDER BY since DESC LIMIT 1"
)
WAITS_AT = (
    "SELECT 1 FROM awaiting WHERE turn_id = ? AND branch = ? AND position = ? AND kind IN ('effect', 'compute')"
    " AND resolved_at IS NULL"
)
HOLDS = "SELECT 1 FROM awaiting WHERE turn_id = ? AND kind = 'effect' AND resolved_at IS NULL"
IN_DOUBT = (  # not what a budget holds back: that was never sent. What outlives its turn has only that turn's agent
    "SELECT t.agent, w.turn_id, w.branch, w.position, j.body FROM awaiting w JOIN turn t ON t.turn_id = w.turn_id"
    " JOIN journal j ON j.turn_id = w.turn_id AND j.branch = w.branch AND j.position = w.position"
    " WHERE w.kind = 'effect' AND w.resolved_at IS NULL AND w.target NOT LIKE ?"
)
HOLD = Many(
    "INSERT INTO awaiting (await_id, agent, turn_id, branch, position, kind, target, since, until)"
    " VALUES (?, ?, ?, ?, ?, 'effect', ?, ?, ?)"
)
ENDED = (
    "SELECT a.namespace, a.name FROM turn t JOIN agent a ON a.uid = t.agent"
    " WHERE t.turn_id = ? AND t.finished_at IS NOT NULL"
)
OUTLIVE = Many(  # what is in doubt stays so when its turn fails; what was never sent, as its target begins, does not
    "UPDATE awaiting SET agent = NULL WHERE turn_id = ? AND kind = 'effect' AND resolved_at IS NULL"
    " AND SUBSTR(target, 1, LENGTH(?)) <> ?"
)
RESEND = Many("UPDATE journal SET send_by = ? WHERE turn_id = ? AND branch = ? AND position = ? AND outcome IS NULL")
RETRIED = Many("UPDATE awaiting SET outcome = 'retried' WHERE await_id = ? AND outcome = 'retry'")
RECEIVED = Many(
    "UPDATE awaiting SET outcome = ?, result = ?, resolved_at = ?"
    " WHERE turn_id = ? AND branch = ? AND position = ? AND kind = 'effect' AND resolved_at IS NULL"
)
