"""Fixtures that need an answer of the client before they can answer: the call ends, and comes again with it.

What the client brings back is checked: an answer that is none is asked for again, and a state that we
did not give out is an error.
"""

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from typing import Any

import mcp_types as types
from mcp import MCPError
from mcp.server import ServerRequestContext

from tests.conformance.contents import text

Context = ServerRequestContext[Any, Any]
Called = Callable[[Context, types.CallToolRequestParams], Awaitable[Any]]
Request = types.ElicitRequest | types.CreateMessageRequest | types.ListRootsRequest
_KEY = b"of this test alone"


def _elicit(message: str, field: str, kind: str = "string") -> types.ElicitRequest:
    schema = {"type": "object", "properties": {field: {"type": kind}}, "required": [field]}
    return types.ElicitRequest(params=types.ElicitRequestFormParams(message=message, requested_schema=schema))


def _sample(question: str, tokens: int = 100) -> types.CreateMessageRequest:
    message = types.SamplingMessage(role="user", content=text(question))
    return types.CreateMessageRequest(params=types.CreateMessageRequestParams(messages=[message], max_tokens=tokens))


_ROOTS = types.ListRootsRequest(params=types.RequestParams())


def seal(state: str) -> str:
    return f"{state}.{hmac.new(_KEY, state.encode(), hashlib.sha256).hexdigest()}"


def unseal(sealed: str) -> str:
    state = sealed.rpartition(".")[0]
    if not hmac.compare_digest(sealed.encode(), seal(state).encode()):
        raise MCPError(types.INVALID_PARAMS, "the request state is not one of ours")
    return state


def _asked(requests: dict[str, Request], state: str | None = None) -> types.InputRequiredResult:
    sealed = seal(state) if state else None
    return types.InputRequiredResult(result_type="input_required", input_requests=requests, request_state=sealed)


def _told(value: str) -> types.CallToolResult:
    return types.CallToolResult(content=[text(value)])


def _content(answer: Any) -> dict[str, Any]:
    return dict(answer.content or {}) if isinstance(answer, types.ElicitResult) else {}


def _asks(requests: dict[str, Request], told: Callable[[dict[str, Any]], str], state: str | None = None) -> Called:
    """Asks for all of it at once; again, for as long as some of it is missing."""

    async def called(context: Context, params: types.CallToolRequestParams) -> Any:
        given = params.input_responses or {}
        if params.request_state is not None:
            unseal(params.request_state)
        missing = state is not None and given and params.request_state is None
        if missing or not set(requests) <= set(given):
            return _asked(requests, state)
        return _told(told(given))

    return called


async def _rounds(context: Context, params: types.CallToolRequestParams) -> Any:
    given = params.input_responses or {}
    state = unseal(params.request_state) if params.request_state is not None else ""
    if state == "two" and "step2" in given:
        return _told("both steps are done")
    if state in ("one", "two") and ("step1" in given or state == "two"):
        return _asked({"step2": _elicit("Step 2: What is your favorite color?", "color")}, "two")
    return _asked({"step1": _elicit("Step 1: What is your name?", "name")}, "one")


async def _by_capability(context: Context, params: types.CallToolRequestParams) -> Any:
    """Asks only by what the client can do."""
    can = context.session.client_capabilities
    requests: dict[str, Request] = {}
    if can is not None and can.sampling is not None:
        requests["sampled"] = _sample("What is the capital of France?")
    if can is not None and can.elicitation is not None:
        requests["elicited"] = _elicit("What is your name?", "name")
    return _asked(requests) if requests and not params.input_responses else _told("done")


async def ask_prompt(context: Context, params: types.GetPromptRequestParams) -> Any:
    given = (params.input_responses or {}).get("user_context")
    if given is None:
        return _asked({"user_context": _elicit("What context should the prompt use?", "context")})
    message = types.PromptMessage(role="user", content=text(f"Context: {_content(given).get('context')}"))
    return types.GetPromptResult(messages=[message])


_CONFIRM: dict[str, Request] = {"confirm": _elicit("Please confirm", "ok", "boolean")}
ASKING: dict[str, Called] = {
    "test_input_required_result_elicitation": _asks(
        {"user_name": _elicit("What is your name?", "name")},
        lambda given: f"Hello, {_content(given['user_name']).get('name')}!",
    ),
    "test_input_required_result_sampling": _asks(
        {"capital_question": _sample("What is the capital of France?")}, lambda given: str(given["capital_question"])
    ),
    "test_input_required_result_list_roots": _asks({"client_roots": _ROOTS}, lambda given: str(given["client_roots"])),
    "test_input_required_result_request_state": _asks(_CONFIRM, lambda _: "state-ok", "confirming"),
    "test_input_required_result_tampered_state": _asks(_CONFIRM, lambda _: "state-ok", "confirming"),
    "test_input_required_result_multiple_inputs": _asks(
        {
            "user_name": _elicit("What is your name?", "name"),
            "greeting": _sample("Generate a greeting", 50),
            "client_roots": _ROOTS,
        },
        lambda given: f"all of {', '.join(sorted(given))}",
        "many",
    ),
    "test_input_required_result_multi_round": _rounds,
    "test_input_required_result_capabilities": _by_capability,
}
