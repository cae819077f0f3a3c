"""Why a turn ends that does not end by itself, as Problems. Pure."""

from typing import Any

from pydantic import ValidationError

from controlplane.effects.turnref import TurnRef
from controlplane.resources.problems import problem
from schemas.frames import FRAME_BYTES_MAX
from schemas.problem import Problem


def worn_out(turn: TurnRef) -> dict[str, Any]:
    """Every attempt at its message took its host along, or could not be committed."""
    detail = f"{turn.attempts} attempts at {turn.message_id} ended without an end of the turn"
    return problem("TURN_FAILED", detail, attempts=turn.attempts, message_id=turn.message_id).model_dump(mode="json")


def expired(turn: TurnRef, now: float) -> bool:
    """Whether its message is over, and no turn has begun with it: none is on record, and no attempt was counted."""
    return turn.expires is not None and turn.expires <= now and not turn.recorded and not turn.attempts


def too_late(message_id: str) -> Problem:
    """A message had a time to live."""
    return problem("EXPIRED", f"no turn had begun with {message_id} when it expired", message_id=message_id)


def too_long(most_s: float) -> dict[str, Any]:
    """It held its host for longer than it may."""
    detail = f"the turn held its host for more than {most_s:g} s"
    return problem("TURN_TIMEOUT", detail, limit="turn_s_max", max=most_s).model_dump(mode="json")


def too_much(size: int) -> dict[str, Any]:
    """What its host needs for it is more than goes into one frame."""
    most = FRAME_BYTES_MAX
    detail = (
        f"the turn goes on with {size} bytes, and a host takes {most} at most: the journal with its answers, the"
        " message, the state and the files of the workspace, all together"
    )
    return problem("LIMIT_REACHED", detail, limit="frame_bytes_max", bytes=size, max=most).model_dump(mode="json")


def said(body: bytes) -> dict[str, Any]:
    """What its host says of it, where that is a Problem."""
    try:
        return Problem.model_validate_json(body).model_dump(mode="json")
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]["msg"]
        found = problem("INTERNAL", f"the host said that the turn failed, and not why: {fault}", fault=fault)
        return found.model_dump(mode="json")
