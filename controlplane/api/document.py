"""The OpenAPI 3.1 document: what FastAPI makes of the routes, with Problems and the token said once."""

from functools import cached_property
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from controlplane.resources.problems import REASONS, problem
from schemas.problem import Problem

DESCRIPTION = """Every operation of the plane. `operationId` is the operation's name, on every surface the same.

Changes are proposed, committed and verified: `resources.propose` answers a plan, `plans.commit` commits it,
`changes.wait` waits for the verdicts. Errors are Problems (RFC 9457) whose `next` holds executable steps.
Each answer's `links` say where it leads. JSON is read strictly: no key twice, no whole number beyond 64 bits, no more
than 64 levels. Send `Authorization: Bearer TOKEN`."""


class DocumentedApp(FastAPI):
    """A FastAPI app whose document is made once."""

    @cached_property
    def _document(self) -> dict[str, Any]:
        document = get_openapi(
            title=self.title,
            version=self.version,
            openapi_version="3.1.0",
            description=DESCRIPTION,
            routes=self.routes,
            servers=[{"url": "/", "description": "The plane that serves this document."}],
            license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        )
        components = document.setdefault("components", {})
        schema = Problem.model_json_schema(mode="serialization", ref_template="#/components/schemas/{model}")
        schemas = components.setdefault("schemas", {})
        schemas.update(schema.pop("$defs", {}))
        schemas["Problem"] = schema
        components["examples"] = {reason: {"value": _example(reason)} for reason in _answered(document)}
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
        return document

    def openapi(self) -> dict[str, Any]:
        return self._document


def _answered(document: dict[str, Any]) -> list[str]:
    """The reasons that some operation answers with; other reasons are met elsewhere, in turns or at the CLI."""
    responses = [
        response
        for path in document["paths"].values()
        for operation in path.values()
        for response in operation["responses"].values()
    ]
    used = {name for it in responses for part in it.get("content", {}).values() for name in part.get("examples", {})}
    return [reason for reason in REASONS if reason in used]


def _example(reason: str) -> dict[str, Any]:
    return problem(reason, REASONS[reason].title).model_dump(mode="json")
