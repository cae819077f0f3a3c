"""One REST route for each operation, made from the catalogue.

FastAPI documents each route from a real signature: path and query parameters with the types of the
input model, the rest of the model as body, the output model as response, Problems as the others.
It does not parse: the route hands one flat raw input to the dispatcher, whose validation is the
same for every surface. The documentation is made once; a call builds no schema.
"""

from collections.abc import Callable, Coroutine
from inspect import Parameter, Signature
from types import NoneType
from typing import Annotated, Any, cast, get_args

from fastapi import Body, Path, Query
from fastapi.routing import APIRoute, APIRouter
from pydantic import BaseModel, create_model
from pydantic.fields import FieldInfo
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from controlplane.api.answers import PROBLEM_JSON, answer
from controlplane.api.inputs import as_object, flat_input, json_types
from controlplane.api.links import links
from controlplane.api.metrics import Metered
from controlplane.feedback.presence import WAITING, while_there
from controlplane.resources.catalogue import OPERATIONS
from controlplane.resources.operation import Operation
from controlplane.resources.problems import REASONS
from schemas.base import LABEL_KEY_PATTERN, LABEL_VALUE_PATTERN, Frozen
from schemas.plan import Preview

COMMON = (
    *("UNAUTHENTICATED", "FORBIDDEN", "FOREIGN_NAMESPACE", "FOREIGN_HOST", "FOREIGN_ORIGIN"),
    *("CONFLICT", "NOT_READY", "STORAGE_FULL", "INTERNAL"),
)
INPUT = ("UNKNOWN_FIELD", "MISSING_FIELD", "INVALID_VALUE", "INVALID_NAME", "OUT_OF_RANGE")
BODY = ("MALFORMED_JSON", "TOO_LARGE", "UNSUPPORTED_MEDIA_TYPE", "NOT_AN_OBJECT", "DEADLINE")
OF_OTHERS = ("REQUEST_ID_REUSED", *(reason for operation in OPERATIONS.values() for reason in operation.problems))
ANY_CALL = "/v1/operations/{operation}/call"

_PAIR = f"{LABEL_KEY_PATTERN[1:-1]}={LABEL_VALUE_PATTERN[1:-1]}"
LABELS_PATTERN = rf"^(\{{.*\}}|{_PAIR}(,{_PAIR})*)$"
_LITERAL = {operation.path for operation in OPERATIONS.values() if "{" not in operation.path}  # no parameter's value
Respond = Callable[[Request], Coroutine[Any, Any, Response]]


class Endpoint:
    """What a route calls; its signature exists for the documentation alone."""

    def __init__(self, name: str, respond: Respond, parameters: list[Parameter]) -> None:
        self.__name__ = name
        self.__signature__ = Signature(parameters)
        self.respond = respond

    async def __call__(self, **_: Any) -> None:
        raise NotImplementedError("the route answers by itself")


class OperationRoute(APIRoute):
    """A FastAPI route that leaves parsing and serialising to its endpoint."""

    def __init__(self, path: str, endpoint: Any, **rest: Any) -> None:
        super().__init__(path, endpoint, **rest)
        self._stem = path.partition("{")[0]

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Most routes are ruled out by how their path begins, at a tenth of the cost of looking closely."""
        path = scope["path"]
        if not path.startswith(self._stem) or (path != self.path and path in _LITERAL):
            return Match.NONE, {}
        return super().matches(scope)

    def get_route_handler(self) -> Respond:
        return cast(Endpoint, self.endpoint).respond


def add_routes(router: APIRouter, call: Metered, special: dict[str, Respond] | None = None) -> None:
    """A route for each operation, and the one that calls any operation by name."""
    for operation in OPERATIONS.values():
        respond = (special or {}).get(operation.name) or _responder(operation, call)
        _add(router, operation, respond)
    _add_any_call(router, call)


def _responder(operation: Operation, call: Metered) -> Respond:
    name = operation.name

    async def respond(request: Request) -> Response:
        return answer(await call(request.state.principal, name, raw_input(name, request)))

    async def respond_while_there(request: Request) -> Response:
        return await while_there(request.state.receive, respond(request))

    return respond_while_there if name in WAITING else respond


def raw_input(operation: str, request: Request) -> dict[str, Any]:
    """The flat input of a request."""
    scope = request.scope
    state = scope["state"]
    return flat_input(
        operation, scope["path_params"], scope["query_string"], state.get("json"), has_body="json" in state
    )


def _add(router: APIRouter, operation: Operation, respond: Respond) -> None:
    in_path = _path_fields(operation)
    output: Any = operation.output | Preview if operation.imperative else operation.output
    router.add_api_route(
        operation.path,
        Endpoint(operation.name, respond, _parameters(operation, in_path)),
        methods=[operation.method],
        route_class_override=OperationRoute,
        operation_id=operation.name,
        tags=[operation.noun],
        summary=operation.summary,
        description=operation.description,
        response_model=output,
        response_description="The output.",
        responses=problem_responses(_reasons(operation)),
        openapi_extra={
            "responses": {"200": _more(operation)},
            "x-steward": {
                "effect": operation.effect,
                "repeats_safely": operation.repeats_safely,
                "role": operation.role,
                "untrusted": list(operation.untrusted),
            },
        },
    )


def _more(operation: Operation) -> dict[str, Any]:
    """What FastAPI does not say of an answer: where it leads, and that it may be a stream."""
    more: dict[str, Any] = {"links": found} if (found := links(operation)) else {}
    if operation.name == "feedback.read":
        said = "`id` is the cursor, `event` the type, `data` the event."
        more["content"] = {"text/event-stream": {"schema": {"type": "string", "description": said}}}
    return more


def _add_any_call(router: APIRouter, call: Metered) -> None:
    async def respond(request: Request) -> Response:
        state, name = request.scope["state"], request.path_params["operation"]
        body = as_object(state["json"]) if "json" in state else {}
        calling = call(state["principal"], name, body)
        return answer(await (while_there(state["receive"], calling) if name in WAITING else calling))

    parameters = [
        Parameter(
            "operation",
            Parameter.KEYWORD_ONLY,
            annotation=Annotated[str, Path(description="Its name.", examples=["system.status"])],
        ),
        Parameter(
            "body",
            Parameter.KEYWORD_ONLY,
            annotation=Annotated[dict[str, Any], Body(description="The operation's input.", examples=[{}])],
            default=None,
        ),
    ]
    router.add_api_route(
        ANY_CALL,
        Endpoint("call_any", respond, parameters),
        methods=["POST"],
        route_class_override=OperationRoute,
        operation_id="call_any",
        tags=["operations"],
        summary="Call any operation, its input as body",
        description="For clients that know operations by name. The answer is the operation's bare output.",
        response_model=Any,
        response_description="The output of the operation.",
        responses=problem_responses((*COMMON, *INPUT, *BODY, *OF_OTHERS)),
    )


def _path_fields(operation: Operation) -> list[str]:
    return [part[1:-1] for part in operation.path.split("/") if part.startswith("{")]


def _parameters(operation: Operation, in_path: list[str]) -> list[Parameter]:
    fields = operation.input.model_fields
    parameters = [
        Parameter(
            name,
            Parameter.KEYWORD_ONLY,
            annotation=Annotated[_there(fields[name].annotation), _path(operation, name), *fields[name].metadata],
        )
        for name in in_path
    ]
    rest = {name: field for name, field in fields.items() if name not in in_path}
    if operation.method == "POST":
        return [*parameters, *_body(operation, rest)]
    return [*parameters, *(_query(operation, name, field) for name, field in rest.items())]


def _there(annotation: Any) -> Any:
    """The type of what stands in a path, and so is never left out."""
    options = [it for it in get_args(annotation) if it is not NoneType]
    return options[0] if NoneType in get_args(annotation) and len(options) == 1 else annotation


def _path(operation: Operation, name: str) -> Any:
    return Path(**_said(operation, name))


def _said(operation: Operation, name: str) -> dict[str, Any]:
    """What is said of a parameter beside its type."""
    field = operation.input.model_fields[name]
    examples = [operation.example[name]] if name in operation.example else None
    return {"description": field.description, "json_schema_extra": field.json_schema_extra, "examples": examples}


def _query(operation: Operation, name: str, field: FieldInfo) -> Parameter:
    default = Parameter.empty if field.is_required() else field.default
    told = Query(**_said(operation, name))
    annotation: Any = Annotated[field.annotation, told, *field.metadata]
    if json_types(operation.name)[name] & {"object", "array"}:
        annotation = Annotated[str | None, _textual(name, operation.input)]
    return Parameter(name, Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _textual(name: str, model: type[BaseModel]) -> Any:
    """An object in a query string: labels by their short form too, others as JSON text of a known schema."""
    if name == "labels":
        extra = {"pattern": LABELS_PATTERN}
        return Query(description="`k=v,k2=v2`, or a JSON object.", examples=["app=echo"], json_schema_extra=extra)
    schema = model.model_json_schema()
    definition = next(schema["$defs"][part["$ref"].rpartition("/")[2]] for part in schema["properties"][name]["anyOf"])
    extra = {"contentMediaType": "application/json", "contentSchema": definition}
    return Query(description="A JSON object.", json_schema_extra=extra)


def _body(operation: Operation, rest: dict[str, FieldInfo]) -> list[Parameter]:
    if not rest:
        return []
    whole = len(rest) == len(operation.input.model_fields)
    model = operation.input if whole else _without_path(operation, rest)
    example = {name: value for name, value in operation.example.items() if name in rest}
    needed = any(field.is_required() for field in rest.values())
    examples = [example] if example or needed else None
    return [
        Parameter(
            "body",
            Parameter.KEYWORD_ONLY,
            annotation=Annotated[model, Body(examples=examples)],
            default=Parameter.empty if needed else None,
        )
    ]


def _without_path(operation: Operation, rest: dict[str, FieldInfo]) -> type[BaseModel]:
    """The input less what stands in the path; the body may repeat that, equal."""
    title = "".join(part.capitalize() for part in operation.name.split("."))
    definitions: dict[str, Any] = {name: (field.annotation, field) for name, field in rest.items()}
    return create_model(f"{title}Body", __base__=Frozen, __doc__=operation.input.__doc__, **definitions)


def _reasons(operation: Operation) -> tuple[str, ...]:
    body = BODY if operation.method == "POST" else ()
    repeated = ("REQUEST_ID_REUSED",) if operation.imperative else ()
    others = OF_OTHERS if operation.name == "operations.call" else ()
    return (*COMMON, *INPUT, *body, *repeated, *operation.problems, *others)


def problem_responses(reasons: tuple[str, ...]) -> dict[int | str, dict[str, Any]]:
    """The Problems of an operation, by status."""
    by_status: dict[int | str, list[str]] = {}
    for reason in dict.fromkeys(reasons):
        by_status.setdefault(REASONS[reason].status, []).append(reason)
    return {status: _problem_response(found) for status, found in sorted(by_status.items(), key=lambda it: int(it[0]))}


def _problem_response(reasons: list[str]) -> dict[str, Any]:
    examples = {reason: {"$ref": f"#/components/examples/{reason}"} for reason in reasons}
    content = {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": examples}
    return {"description": ", ".join(reasons), "content": {PROBLEM_JSON: content}}
