"""What the conformance suite asks of a server beside its protocol: its tools, resources and prompts.

They are put on top of the plane's own server by the SDK's public handlers; whatever is not theirs goes
to the handler of the plane that was there before. Nothing of this is part of the product.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import mcp_types as types
from mcp import MCPError
from mcp.server import Server, ServerRequestContext

from tests.conformance.asking import ASKING, ask_prompt
from tests.conformance.contents import PROMPTS, RESOURCES, TEMPLATE, prompt, read
from tests.conformance.tools import LISTED, TOOLS

Context = ServerRequestContext[Any, Any]
Handler = Callable[[Context, Any], Awaitable[Any]]


def add_fixtures(server: Server[Any]) -> None:
    """The suite's fixtures, on top of what the server has."""
    for method, params, make in _OVER:
        entry = server.get_request_handler(method)
        assert entry is not None, f"the plane serves {method}"
        server.add_request_handler(method, params, make(entry.handler))
    schemas = {tool.name: tool.input_schema for tool in LISTED}
    server.get_tool_input_schema = schemas.get
    server.add_request_handler("prompts/list", types.PaginatedRequestParams, _list_prompts)
    server.add_request_handler("prompts/get", types.GetPromptRequestParams, _get_prompt)
    server.add_request_handler("completion/complete", types.CompleteRequestParams, _complete)


def _tools_listed(before: Handler) -> Handler:
    async def handle(context: Context, params: Any) -> types.ListToolsResult:
        own = await before(context, params)
        return types.ListToolsResult(tools=[*own.tools, *LISTED])

    return handle


def _tool_called(before: Handler) -> Handler:
    async def handle(context: Context, params: types.CallToolRequestParams) -> Any:
        found = TOOLS.get(params.name) or ASKING.get(params.name)
        return await found(context, params) if found else await before(context, params)

    return handle


def _resources_listed(before: Handler) -> Handler:
    async def handle(context: Context, params: Any) -> types.ListResourcesResult:
        own: types.ListResourcesResult = await before(context, params)
        first = params is None or params.cursor is None
        return own.model_copy(update={"resources": [*own.resources, *(RESOURCES if first else ())]})

    return handle


def _templates_listed(before: Handler) -> Handler:
    async def handle(context: Context, params: Any) -> types.ListResourceTemplatesResult:
        own = await before(context, params)
        return types.ListResourceTemplatesResult(resource_templates=[*own.resource_templates, TEMPLATE])

    return handle


def _resource_read(before: Handler) -> Handler:
    async def handle(context: Context, params: types.ReadResourceRequestParams) -> Any:
        found = read(str(params.uri))
        return found if found else await before(context, params)

    return handle


_OVER: list[tuple[str, Any, Callable[[Handler], Handler]]] = [
    ("tools/list", types.PaginatedRequestParams, _tools_listed),
    ("tools/call", types.CallToolRequestParams, _tool_called),
    ("resources/list", types.PaginatedRequestParams, _resources_listed),
    ("resources/templates/list", types.PaginatedRequestParams, _templates_listed),
    ("resources/read", types.ReadResourceRequestParams, _resource_read),
]


async def _list_prompts(context: Context, params: Any) -> types.ListPromptsResult:
    return types.ListPromptsResult(prompts=PROMPTS)


async def _get_prompt(context: Context, params: types.GetPromptRequestParams) -> Any:
    if params.name == "test_input_required_result_prompt":
        return await ask_prompt(context, params)
    found = prompt(params.name, params.arguments or {})
    if found is None:
        raise MCPError(types.INVALID_PARAMS, "there is no such prompt")
    return found


async def _complete(context: Context, params: types.CompleteRequestParams) -> types.CompleteResult:
    known = ("paris", "park", "party")
    values = [it for it in known if it.startswith(params.argument.value)]
    return types.CompleteResult(completion=types.Completion(values=values, total=len(values), has_more=False))
