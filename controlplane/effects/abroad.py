"""What a turn's failure is for another namespace: that it failed, and its reason. What was inside stays there. Pure."""

from typing import Any

import orjson

from controlplane.effects.turnref import TurnRef

KEPT = ("type", "title", "status", "instance", "reason", "recovery", "retry_after_s", "changed")


def for_asker(turn: TurnRef, found: dict[str, Any]) -> dict[str, Any]:
    """A problem as whoever asked gets it; an agent of another namespace sees no text, no trace and no next step."""
    source = str(orjson.loads(turn.message).get("source") or "")
    if turn.by_operator or not source.startswith("/") or source.startswith(f"/{turn.namespace}/"):
        return found
    told = {name: found[name] for name in KEPT if name in found}
    return {**told, "detail": f"the turn of {turn.address} failed", "field": None, "metadata": {}, "next": []}


def gave_up(turn: TurnRef) -> str:
    """Why a message of a queue is a dead letter there, where its member was a guest."""
    return f"a guest, {turn.address}, gave it up"
