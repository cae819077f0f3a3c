"""`http.<operationId>`: the operations of the OpenAPI document that a connection has, as effects.

Each is one `http.request`, made of arguments that meet the document; what may be sent twice is decided as there.
"""

from collections.abc import Mapping
from typing import Any

import orjson
from pydantic import BaseModel, ValidationError

from controlplane.protocols.http import HttpEffector
from controlplane.protocols.openapi import Called, DocumentError, read, request_of, under_defs
from controlplane.resources.problems import refuse
from schemas.endpoint import ConnectionSpec
from schemas.http import HttpRequest
from schemas.http_connection import HttpConnection
from schemas.ports import EffectCall, Given, Link, Role
from schemas.problem import Refusal

ROLES: Mapping[str, Role] = {
    "path": "target",
    "query": "control",
    "header": "control",
    "cookie": "control",
    "body": "payload",
}
KEPT_MAX = 100
KNOWN_MAX = 50


class Operation:
    """One operation over one connection."""

    protocol: str | None = "http"
    timeout_s = HttpEffector.timeout_s
    reads_only = False
    roles = ROLES

    def __init__(self, called: Called, sender: HttpEffector) -> None:
        self.name = f"http.{called.name}"
        self.arguments: Mapping[str, Any] = called.arguments
        self._called = called
        self._sender = sender

    @property
    def description(self) -> str:
        return self._called.about

    @property
    def offered(self) -> Mapping[str, Any]:
        return under_defs(self._called.arguments)

    def repeats_for_s(self, arguments: BaseModel, spec: ConnectionSpec | None) -> float:
        return self._sender.repeats_for_s(HttpRequest(method=self._called.method), spec)

    async def ready(self) -> None:
        await self._sender.ready()

    async def execute(self, arguments: BaseModel, call: EffectCall) -> Any:
        assert isinstance(arguments, Given)
        try:
            asked = request_of(self._called, arguments.root)
        except ValidationError as error:
            said = error.errors(include_url=False, include_input=False)[0]["msg"]
            detail = f"no request can be made of these arguments: {said}"
            raise refuse("INVALID_VALUE", detail, field="/arguments", effect=self.name, error=said) from None
        return await self._sender.execute(asked, call)


class Operations:
    """All operations of all documents. What was read of one is kept while its connection stays as it is."""

    name = "http.*"
    protocol = "http"

    def __init__(self, sender: HttpEffector) -> None:
        self._sender = sender
        self._kept: dict[tuple[str, int], Mapping[str, Called]] = {}

    def resolve(self, effect: str, link: Link) -> Operation:
        known = self._of(link)
        name = effect.removeprefix("http.")
        called = known.get(name)
        if called is None:
            detail = f"connection {link.name} has no effect {effect}"
            names = [self._sender.name, *(f"http.{it}" for it in sorted(known)[:KNOWN_MAX])]
            raise refuse("UNKNOWN_EFFECT", detail, effect=effect, connection=link.name, known=names)
        if called.unusable:
            detail = f"{effect} can not be used over {link.name}: {called.unusable}"
            raise refuse("UNKNOWN_EFFECT", detail, effect=effect, connection=link.name, why=called.unusable)
        return Operation(called, self._sender)

    def effects(self, link: Link) -> list[str]:
        """All operations of the document; none where it can not be read."""
        try:
            return [f"http.{it}" for it in self._of(link)]
        except Refusal:
            return []

    def _of(self, link: Link) -> Mapping[str, Called]:
        assert isinstance(link.spec, HttpConnection)
        document = link.spec.options.openapi
        if document is None:
            return {}
        key = link.uid, link.generation
        if key not in self._kept:
            if len(self._kept) >= KEPT_MAX:
                self._kept.clear()
            try:
                self._kept[key] = read(orjson.dumps(document))
            except DocumentError as error:  # it was let in by another release
                detail = f"no effects can be made of the document of {link.name}: {error}"
                raise refuse("UNKNOWN_EFFECT", detail, connection=link.name, why=str(error)) from None
        return self._kept[key]
