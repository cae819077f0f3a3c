"""Every reason a call can be refused for: one cause each, with its title, status and kind of way out."""

from typing import Any, NamedTuple

from schemas.problem import Next, Problem, Recovery, Refusal


class Reason(NamedTuple):
    title: str
    status: int
    recovery: Recovery


REASONS: dict[str, Reason] = {
    # who you are
    "UNAUTHENTICATED": Reason("A valid token is needed", 401, "reauthenticate"),
    "FORBIDDEN": Reason("The token's role is too small", 403, "escalate"),
    "FOREIGN_NAMESPACE": Reason("The token does not reach this namespace", 403, "escalate"),
    "FOREIGN_HOST": Reason("The request was meant for another host", 421, "fix_input"),
    "FOREIGN_ORIGIN": Reason("Pages of other origins may not call this plane", 403, "fix_input"),
    # what you sent
    "MALFORMED_HTTP": Reason("What came is not HTTP", 400, "fix_input"),
    "HEAD_TOO_LARGE": Reason("The headers are too large", 431, "fix_input"),
    "MALFORMED_JSON": Reason("The body is not JSON", 400, "fix_input"),
    "MALFORMED_YAML": Reason("The file is not YAML", 400, "fix_input"),
    "NOT_AN_OBJECT": Reason("The input must be one JSON object", 422, "fix_input"),
    "TOO_LARGE": Reason("The body is too large", 413, "fix_input"),
    "UNSUPPORTED_MEDIA_TYPE": Reason("The body must be application/json", 415, "fix_input"),
    "UNKNOWN_FIELD": Reason("Unknown field", 422, "fix_input"),
    "MISSING_FIELD": Reason("A field is missing", 422, "fix_input"),
    "INVALID_VALUE": Reason("A value is not allowed", 422, "fix_input"),
    "INVALID_NAME": Reason("A name is not allowed", 422, "fix_input"),
    "TOO_MANY_LINES": Reason("There are more lines than one answer holds", 422, "fix_input"),
    "OUT_OF_RANGE": Reason("A number or length is out of range", 422, "fix_input"),
    "UNKNOWN_KIND": Reason("There is no such kind", 422, "fix_input"),
    "DUPLICATE_MANIFEST": Reason("Two manifests name the same resource", 422, "fix_input"),
    "INVALID_CURSOR": Reason("The cursor or page is not one of ours", 422, "fix_input"),
    "NOT_FOUND": Reason("There is no such thing", 404, "fix_input"),
    "UNKNOWN_OPERATION": Reason("There is no such operation", 404, "fix_input"),
    "METHOD_NOT_ALLOWED": Reason("The path does not take this method", 405, "fix_input"),
    "REQUEST_ID_REUSED": Reason("The request id was used with other input", 409, "fix_input"),
    # what stands in the way
    "PLAN_EXPIRED": Reason("The plan has expired", 410, "replan"),
    "STALE_REVERT": Reason("What the change wrote was changed again", 409, "replan"),
    "NOT_REVERTIBLE": Reason("The change can not be taken back", 409, "stop"),
    "OWNED": Reason("The resource belongs to another", 409, "fix_input"),
    "IN_USE": Reason("Others still rest on it", 409, "fix_input"),
    "INVALID_WORKSPACE": Reason("The workspace can not be kept", 422, "fix_input"),
    "INVALID_CODE": Reason("The code can not be used", 422, "fix_input"),
    "OTHER_PYTHON": Reason("A host runs another Python than the gate", 409, "escalate"),
    "NO_CONFINEMENT": Reason("It can not be confined", 422, "fix_input"),
    "CODE_NOT_FOUND": Reason("There is no code of this digest", 422, "fix_input"),
    "SECRET_VALUE_MISSING": Reason("There is no stored value to keep", 422, "fix_input"),
    "ROUTE_LOOP": Reason("The routes would lead in a circle", 422, "fix_input"),
    "SCHEMA_MISMATCH": Reason("The data does not meet its schema", 422, "fix_input"),
    "QUOTA": Reason("A limit of the installation is reached", 429, "wait"),
    "BACKLOG_FULL": Reason("The inbox or the queue is full", 429, "wait"),
    "NOT_SET_UP": Reason("What is declared is not set up yet", 409, "wait"),
    "STOPPED": Reason("The agent is stopped", 409, "fix_input"),
    "TURN_FAILED": Reason("The agent failed while handling the message", 502, "escalate"),
    "DEADLINE": Reason("The deadline has passed", 504, "wait"),
    # in the turn
    "NOT_GRANTED": Reason("The agent's mandate does not grant this effect", 403, "escalate"),
    "UNKNOWN_EFFECT": Reason("There is no such effect", 422, "fix_input"),
    "UNKNOWN_PROTOCOL": Reason("There is no such protocol", 422, "fix_input"),
    "NO_CONNECTION": Reason("There is no such connection", 422, "fix_input"),
    "TOOL_NOT_ACCEPTED": Reason("The tool is not what an operator has accepted", 409, "request_approval"),
    "TOOL_CHANGED": Reason("The tool is not what is to be accepted any more", 409, "fix_input"),
    "FORBIDDEN_ADDRESS": Reason("The connection may not reach this address", 403, "fix_input"),
    "CANCELLED": Reason("Nobody waits for the answer any more", 409, "stop"),
    "EFFECT_FAILED": Reason("The effect failed", 502, "escalate"),
    "MORE_THAN_JUDGED": Reason("More would be touched than was judged", 409, "wait"),
    "COMPUTE_FAILED": Reason("The function raised", 500, "fix_input"),
    "COMPUTE_LOST": Reason("The worker of the function died", 502, "escalate"),
    "NO_RESOURCES": Reason("No node has what is asked for", 409, "fix_input"),
    "IN_DOUBT": Reason("It is not known whether the effect happened", 409, "escalate"),
    "UNFIT_HOST": Reason("The host can not take the agent", 409, "fix_input"),
    "HELD": Reason("The effect would be held for an operator", 409, "escalate"),
    "NOT_HELD": Reason("The effect is not held for an operator", 409, "fix_input"),
    "NOT_OPEN": Reason("The question is not open any more", 409, "fix_input"),
    "STILL_SENDING": Reason("The effect may still be on its way", 409, "wait"),
    "OUTPUT_MISMATCH": Reason("The answer does not meet its schema", 502, "escalate"),
    "STATE_VERSION": Reason("The stored state can not be brought to the code's version", 422, "fix_input"),
    "LIMIT_REACHED": Reason("A limit of the turn is reached", 429, "stop"),
    "BUDGET_EXCEEDED": Reason("It could pass the limit of a budget", 429, "wait"),
    "TURN_TIMEOUT": Reason("The turn took too long", 504, "stop"),
    "NONDETERMINISTIC": Reason("The handler did what can not be replayed", 500, "fix_input"),
    "REPLAY_DIVERGED": Reason("The replay differs from the journal", 500, "fix_input"),
    "UPGRADED": Reason("The turn was parked when its agent got newer code", 409, "wait"),
    "UPGRADE_DIFFERS": Reason("The parked turn does not replay on the newer code", 409, "fix_input"),
    "HANDLER_ERROR": Reason("The handler raised", 500, "fix_input"),
    "EXPIRED": Reason("The message was not handled in time", 410, "stop"),
    "ASK_CYCLE": Reason("The question would wait for itself", 409, "fix_input"),
    "TARGET_NOT_FOUND": Reason("The message has nobody to go to", 404, "fix_input"),
    # what is broken here
    "NO_EMBEDDING": Reason("Texts can not be compared by meaning here", 503, "escalate"),
    "NOT_READY": Reason("Messages are not accepted yet", 503, "wait"),
    "CONFLICT": Reason("Others wrote at the same time", 409, "wait"),
    "DATA_LOCKED": Reason("Another plane runs on this data folder", 409, "stop"),
    "DATA_UNWRITABLE": Reason("The data folder can not be written", 507, "fix_input"),
    "DATABASE_LOCKED": Reason("Another installation runs on this database", 409, "stop"),
    "PORT_TAKEN": Reason("The port is taken", 409, "fix_input"),
    "NO_PLANE": Reason("No plane answers", 503, "wait"),
    "STORAGE_FULL": Reason("The store can not be written", 507, "wait"),
    "INTERNAL": Reason("Something broke here", 500, "escalate"),
}


def problem(
    reason: str,
    detail: str,
    *,
    field: str | None = None,
    next: list[Next] | None = None,  # noqa: A002 - the field's name in the contract
    retry_after_s: float | None = None,
    **metadata: Any,
) -> Problem:
    """The Problem of a reason; `metadata` holds every variable of `detail`."""
    known = REASONS[reason]
    return Problem(
        type=f"urn:steward:problem:{reason}",
        title=known.title,
        status=known.status,
        detail=detail,
        reason=reason,
        field=field,
        metadata=metadata,
        recovery=known.recovery,
        retry_after_s=retry_after_s,
        next=next or [],
    )


def refuse(reason: str, detail: str, **rest: Any) -> Refusal:
    """The Refusal to raise; takes what `problem` takes."""
    return Refusal(problem(reason, detail, **rest))
