"""What the worker of a route tells of its poll. The gate takes it from workers of routes alone."""

from ray_runtime.sdk import Turn
from schemas.base import canonical
from schemas.polled import POLL, Fault


def tell_failed(turn: Turn, connection: str, fault: Fault, reason: str, detail: str, since: float) -> None:
    """It fails: told when that begins, and when it fails in another way."""
    _tell(turn, {"connection": connection, "fault": fault, "reason": reason, "detail": detail, "since": since})


def tell_recovered(turn: Turn, connection: str, since: float) -> None:
    """It works again, and has failed since then."""
    _tell(turn, {"connection": connection, "since": since})


def _tell(turn: Turn, body: dict[str, object]) -> None:
    turn._journal.record(POLL, canonical(body))
