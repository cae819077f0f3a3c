"""`POST /hooks/{namespace}/{connection}`: what is posted to a connection. The signature is the credential, no token.

Nothing is looked at here: body and headers go to the gate as they are, which alone holds what a signature is
checked with. The answer comes after it is durable, and says the same for every signature that is not taken.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from controlplane.api.answers import plain
from controlplane.api.boundary import HOOKS
from controlplane.resources.problems import refuse
from schemas.base import NAME_PATTERN

ONE, BATCH = ("message_id", "duplicate"), ("messages", "accepted", "duplicates")
_NAME = re.compile(NAME_PATTERN)
_LEFT_OUT = frozenset({"authorization", "cookie", "proxy-authorization"})
Post = Callable[[str, str, dict[str, str], bytes], Awaitable[dict[str, Any]]]


def hook_route(post: Post) -> Route:
    """The route of all connections."""

    async def respond(request: Request) -> Response:
        namespace, name = request.path_params["namespace"], request.path_params["connection"]
        if not (_is_name(namespace) and _is_name(name)):
            raise refuse("INVALID_NAME", f"a name matches {NAME_PATTERN}", pattern=NAME_PATTERN)
        answered = await post(namespace, name, headers_of(request), await request.body())
        return plain({name: answered[name] for name in (BATCH if "messages" in answered else ONE)})

    return Route(HOOKS + "{namespace}/{connection}", endpoint=respond, methods=["POST"])


def headers_of(request: Request) -> dict[str, str]:
    """The first of each header, less what is for us alone."""
    found: dict[str, str] = {}
    for name, value in request.headers.items():
        if name not in _LEFT_OUT:
            found.setdefault(name, value)
    return found


def _is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None
