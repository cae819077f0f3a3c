"""Calls whose arguments are no JSON object: they are refused as any other call is, by a result of the tool.

The boundary takes JSON strictly. What it refuses on an MCP path comes here: if it is a call of a tool all
the same, the call goes on without its arguments, with the Problem beside it; else the refusal stands.
"""

import json
from typing import Any

import orjson
from starlette.types import Message, Receive

from controlplane.resources.problems import refuse
from schemas.problem import Problem, Refusal

INTEGER_CHARS_MAX = 20


def readable(message: Any, body: bytes | None, refused: Problem | None) -> tuple[Any, Problem | None]:
    """The message that goes on, and why it is refused, if it is; raises the Refusal of what is no call of a tool."""
    if refused is not None:
        found = _without_arguments(_read_loosely(body or b""))
        if found is None:
            raise Refusal(refused)
        return found, refused
    params = message.get("params") if isinstance(message, dict) else None
    given = params.get("arguments") if isinstance(params, dict) else None
    if given is None or isinstance(given, dict) or (found := _without_arguments(message)) is None:
        return message, None
    return found, refuse("NOT_AN_OBJECT", "arguments must be an object", field="").problem


def _read_loosely(body: bytes) -> Any:
    """What a lenient reader makes of it; None where it makes nothing."""
    try:
        return json.loads(body, parse_int=lambda text: int(text) if len(text) < INTEGER_CHARS_MAX else None)
    except (ValueError, RecursionError):
        return None


def _without_arguments(message: Any) -> dict[str, Any] | None:
    """A call of a tool with empty arguments; None if the message is none, or is not sound beside its arguments."""
    if not isinstance(message, dict) or message.get("method") != "tools/call":
        return None
    params, id_ = message.get("params"), message.get("id")
    if not isinstance(params, dict) or not isinstance(params.get("name"), str):
        return None
    if not isinstance(id_, str | int) or isinstance(id_, bool):
        return None
    kept = {"name": params["name"], "arguments": {}, "_meta": params.get("_meta") or {}}
    call = {"jsonrpc": message.get("jsonrpc"), "id": id_, "method": "tools/call", "params": kept}
    try:
        orjson.dumps(call)
    except orjson.JSONEncodeError:
        return None
    return call


def receiving(message: Any, receive: Receive) -> Receive:
    """Receives the message instead of the body that was sent, then whatever comes after it."""
    pending: list[Message] = [{"type": "http.request", "body": orjson.dumps(message), "more_body": False}]

    async def received() -> Message:
        return pending.pop() if pending else await receive()

    return received
