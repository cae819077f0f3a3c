"""`http.request`: one request over a connection of protocol `http`, and its answer.

What the far side promises decides what may be sent twice: methods that the connection names, or any
request while the far side knows its key. That a method is called idempotent promises nothing. The
client is loaded with the first request.
"""

import asyncio
from collections.abc import Awaitable, Callable
from math import inf
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

from controlplane.protocols.envelopes import to_http, trace_of
from controlplane.resources.problems import refuse
from schemas.endpoint import ConnectionSpec, HeaderOptions
from schemas.http import HttpRequest, MadeRequest
from schemas.http_connection import HttpConnection
from schemas.ports import EffectCall, Link, Role

ROLES: MappingProxyType[str, Role] = MappingProxyType(
    {"method": "control", "path": "target", "query": "control", "headers": "control", "event_mode": "control"}
)
Answer = Callable[[HttpRequest, Link, dict[str, str], dict[str, str]], Awaitable[dict[str, Any]]]


class HttpEffector:
    """Sends requests for agents."""

    name = "http.request"
    protocol: str | None = "http"
    timeout_s = 30.0
    reads_only = False
    description = "One request, below the connection's endpoint. Whatever the far side answers is an answer."
    arguments: type[BaseModel] = HttpRequest
    roles = ROLES

    def __init__(self) -> None:
        self._answer: Answer | None = None

    def repeats_for_s(self, arguments: BaseModel, spec: ConnectionSpec | None) -> float:
        """For ever, for as long as the far side knows the key, or not at all."""
        if not isinstance(spec, HttpConnection):
            return 0.0
        if HttpRequest.model_validate(arguments, from_attributes=True).method in spec.options.repeats_safely:
            return inf
        return float(spec.options.key_lifetime_s or 0)

    async def ready(self) -> None:
        """Load the client, in a thread: it takes a third of a second, once."""
        if self._answer is None:
            self._answer = await asyncio.to_thread(_loaded)

    async def execute(self, arguments: BaseModel, call: EffectCall) -> Any:
        assert isinstance(arguments, HttpRequest)
        assert call.link is not None
        headers = {**arguments.headers, "Accept-Encoding": "identity"}
        arguments = labelled(arguments, call.taint)
        if arguments.event is not None:
            said = to_http(arguments.event.model_dump(mode="json"), arguments.event_mode)[0]
            headers = {name: it for name, it in headers.items() if not _of_event(name)} | said
        own = own_headers(call.link, call.key) | traced(call)
        if isinstance(arguments, MadeRequest) and arguments.cookie:
            if any(it.lower() == "cookie" for it in own):
                detail = f"cookies of {call.link.name} are the connection's to set, and not an operation's"
                raise refuse("INVALID_VALUE", detail, field="/arguments/cookie", connection=call.link.name)
            own["Cookie"] = arguments.cookie
        if taken := {it.lower() for it in arguments.headers} & {it.lower() for it in own}:
            detail = f"header {min(taken)} is the connection's to set, not an agent's"
            raise refuse("INVALID_VALUE", detail, field="/arguments/headers", header=min(taken))
        await self.ready()
        assert self._answer is not None
        return await self._answer(arguments, call.link, headers, own)


def _of_event(name: str) -> bool:
    """Whether a header is the event's to set: a second one of another case would go beside it."""
    return name.lower() == "content-type" or name.lower().startswith("ce-")


def _loaded() -> Answer:
    from controlplane.protocols.http_client import answer

    return answer


def traced(call: EffectCall) -> dict[str, str]:
    """The trace that the call is part of, as the W3C has it; told to the endpoint's own origin only."""
    found = trace_of(call.traceparent)
    return {} if found is None else {"traceparent": found}


def labelled(asked: HttpRequest, taint: str) -> HttpRequest:
    """With the label of what caused it on its event: what an agent says of that does not take it away."""
    if not taint or asked.event is None:
        return asked
    return asked.model_copy(update={"event": asked.event.model_copy(update={"taint": taint})})


def own_headers(link: Link, key: str) -> dict[str, str]:
    """The secret and the key, as the connection says that they are sent."""
    assert isinstance(link.spec, HttpConnection)
    signs = link.spec.options.webhook is not None  # then the secret is for what comes in
    headers = {} if signs else secret_headers(link, link.spec.options)
    if link.spec.options.idempotency_header is not None:
        headers[link.spec.options.idempotency_header] = key
    return headers


def secret_headers(link: Link, options: HeaderOptions) -> dict[str, str]:
    """The secret, if there is one, as these options say that it is sent."""
    headers = {}
    if link.secret:
        if not (link.secret.isascii() and link.secret.isprintable()):
            detail = f"the secret of connection {link.name} holds characters that no header can carry"
            raise refuse("EFFECT_FAILED", detail, connection=link.name)
        headers[options.secret_header] = f"{options.secret_scheme} {link.secret}".lstrip()
    return headers
