"""Settling: what an operator says of an external effect in doubt."""

from controlplane.resources.operation import Operation
from schemas.settling import Settled, SettleInput

OPERATIONS = (
    Operation(
        "turns.settle",
        "Settle an effect in doubt",
        "Says once what came of a held effect; the turn goes on with that. `retry` sends it once more under its "
        "key. Refused while the effect may still be on its way.",
        SettleInput,
        Settled,
        "POST",
        "/v1/turns/{turn_id}/settle",
        "change",
        "operator",
        "record",
        imperative=True,
        problems=("NOT_FOUND", "NOT_HELD", "STILL_SENDING", "TOO_LARGE", "NOT_READY"),
        example={"turn_id": "turn_1", "position": 0, "outcome": "failed", "reason": "the far side has no such order"},
    ),
)
