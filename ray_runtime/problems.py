"""The Problems that a host can find by itself.

Hosts import the vocabulary only, so the few reasons they need stand here; a test holds their
titles, statuses and ways out against the catalogue's. A Problem of a handler shows the user's
own frames, with paths as they are in the code package, and nothing of the machine.
"""

import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from schemas.problem import Next, Problem, Recovery, Refusal

MESSAGE_CHARS_MAX = 2000
FRAMES_MAX = 8
_OWN_FOLDER = str(Path(__file__).parent)


class Unanswered(Exception):  # noqa: N818 - what it says is no error of the handler's
    """What a handler needs of its machine is not to be had now; that says nothing about handler and message."""


class Reason(NamedTuple):
    title: str
    status: int
    recovery: Recovery


REASONS: dict[str, Reason] = {
    "INVALID_CODE": Reason("The code can not be used", 422, "fix_input"),
    "CODE_NOT_FOUND": Reason("There is no code of this digest", 422, "fix_input"),
    "INVALID_VALUE": Reason("A value is not allowed", 422, "fix_input"),
    "EFFECT_FAILED": Reason("The effect failed", 502, "escalate"),
    "OUTPUT_MISMATCH": Reason("The answer does not meet its schema", 502, "escalate"),
    "INVALID_WORKSPACE": Reason("The workspace can not be kept", 422, "fix_input"),
    "STATE_VERSION": Reason("The stored state can not be brought to the code's version", 422, "fix_input"),
    "LIMIT_REACHED": Reason("A limit of the turn is reached", 429, "stop"),
    "TURN_TIMEOUT": Reason("The turn took too long", 504, "stop"),
    "NONDETERMINISTIC": Reason("The handler did what can not be replayed", 500, "fix_input"),
    "REPLAY_DIVERGED": Reason("The replay differs from the journal", 500, "fix_input"),
    "COMPUTE_FAILED": Reason("The function raised", 500, "fix_input"),
    "HANDLER_ERROR": Reason("The handler raised", 500, "fix_input"),
    "INTERNAL": Reason("Something broke here", 500, "escalate"),
}


def problem(
    reason: str,
    detail: str,
    *,
    field: str | None = None,
    next: Sequence[Next] = (),  # noqa: A002 - the field's name in the contract
    **metadata: Any,
) -> Problem:
    """The Problem of a reason; `metadata` holds every variable of `detail`."""
    known = REASONS[reason]
    return Problem(
        type=f"urn:steward:problem:{reason}",
        title=known.title,
        status=known.status,
        detail=detail[:MESSAGE_CHARS_MAX],
        reason=reason,
        field=field,
        metadata=metadata,
        recovery=known.recovery,
        next=list(next),
    )


def refuse(reason: str, detail: str, *, field: str | None = None, **metadata: Any) -> Refusal:
    """The Refusal to raise; takes what `problem` takes."""
    return Refusal(problem(reason, detail, field=field, **metadata))


def user_frames(error: BaseException, root: str) -> list[str]:
    """The last frames of the user's code, `file:line in function: source`."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(_OWN_FOLDER)]
    prefix = root.rstrip("/") + "/" if root else ""
    return [f"{f.filename.removeprefix(prefix)}:{f.lineno} in {f.name}: {f.line}" for f in frames[-FRAMES_MAX:]]


def handler_error(error: BaseException, root: str) -> Problem:
    """What a handler raised, with where it raised it."""
    kind, message = type(error).__name__, str(error)[:MESSAGE_CHARS_MAX]
    frames = user_frames(error, root)
    place = f" ({frames[-1].split(': ')[0]})" if frames else ""
    return problem("HANDLER_ERROR", f"{kind}: {message}{place}", type=kind, message=message, traceback=frames)


def compute_error(error: BaseException, root: str, function: str) -> Problem:
    """What a function raised that was to be computed, with where it raised it."""
    raised = handler_error(error, root)
    return problem("COMPUTE_FAILED", f"{function}: {raised.detail}", function=function, **raised.metadata)


def code_error(error: BaseException, root: str, entrypoint: str) -> Problem:
    """Why a module did not import: the last line of the traceback, with file and line."""
    last = traceback.format_exception_only(error)[-1].strip()[:MESSAGE_CHARS_MAX]
    place = _place(error, root)
    detail = f"{entrypoint} does not import: {last}" + (f" ({place})" if place else "")
    return problem("INVALID_CODE", detail, entrypoint=entrypoint, error=last, place=place)


def _place(error: BaseException, root: str) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename.removeprefix(root.rstrip('/') + '/')}:{error.lineno}"
    own = [f for f in traceback.extract_tb(error.__traceback__) if root and f.filename.startswith(root)]
    return f"{own[-1].filename.removeprefix(root.rstrip('/') + '/')}:{own[-1].lineno}" if own else ""
