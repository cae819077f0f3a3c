"""An OpenAPI document as effects: each operation of it is `http.<operationId>`, with arguments by its schemas. Pure.

Arguments come in objects, as the document has them: `path`, `query`, `header`, `cookie`; and `body`. What an operation
needs and can not be sent so (a body of another kind) makes that operation unusable, and says why.
Servers and security of the document are not looked at: the connection says where calls go, and with which secret.
References lead into the document itself; of its components an operation's schema holds those that it refers to.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, get_args
from urllib.parse import quote

import orjson
from jsonschema import Draft202012Validator, SchemaError

from controlplane.protocols.openapi_bodies import chosen, content_of
from controlplane.resources.problems import refuse
from schemas.http import RESERVED, MadeRequest
from schemas.http_connection import Method
from schemas.ports import ARGUMENTS_BYTES_MAX

DOCUMENT_BYTES_MAX = 262_144
OPERATIONS_MAX = 300
REFERENCES_MAX = 500
FOLLOWED_MAX = 10
READ_MAX = 16  # documents whose operations are kept
ABOUT_CHARS_MAX = 500
PLACES = ("path", "query", "header", "cookie")
_IGNORED = RESERVED | {"accept", "content-type"}  # as OpenAPI says of them; the rest is the connection's
_TEMPLATE = re.compile(r"\{([^{}]+)\}")
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,200}")  # of a cookie
_AS_IT_IS = "!#$&'()*+-./:<=>?@[]^_`{|}~"  # what a cookie's value holds unencoded
_NOT_OF_A_NAME = re.compile(r"[^A-Za-z0-9_-]")
Json = dict[str, Any]


@dataclass(frozen=True)
class Called:
    """One operation: how it is called, and the JSON Schema of its arguments; or why it can not be."""

    name: str
    method: Method
    path: str
    arguments: Json
    joined: frozenset[str] = frozenset()  # query parameters whose lists are one text
    unusable: str = ""
    parts: list[Any] = field(default_factory=list)  # what the schema refers to
    about: str = ""  # what the document says that it does
    kind: str = ""  # of its body, where that is no JSON


class DocumentError(ValueError):
    """What a document is, that no effects can be made of."""


def operations_of(document: Mapping[str, Any]) -> dict[str, Called]:
    """The operations by the names of their effects, less `http.`; raises DocumentError."""
    version = str(document.get("openapi", ""))
    if not version.startswith(("3.0", "3.1")):
        raise DocumentError("it is no OpenAPI document of version 3.0 or 3.1")
    parts = _Document(_newer(dict(document)) if version.startswith("3.0") else document)
    found: dict[str, Called] = {}
    for path, item in _object(parts.whole.get("paths")).items():
        whole = _object(parts.followed(item))
        for method in get_args(Method):
            operation = _object(whole.get(method.lower()))
            if not isinstance(operation.get("operationId"), str):
                continue  # it has no name to be called by
            name = _NOT_OF_A_NAME.sub("_", operation["operationId"])[:150]
            if name in found or not name:
                raise DocumentError(f"two operations would be the effect http.{name}, or one has no name")
            if len(found) >= OPERATIONS_MAX:
                raise DocumentError(f"it has more than {OPERATIONS_MAX} operations")
            found[name] = _called(parts, name, method, path, whole, operation)
    return found


@lru_cache(maxsize=READ_MAX)
def read(document: bytes) -> Mapping[str, Called]:
    """The operations of a document as JSON, kept for all who look at it; raises DocumentError."""
    return operations_of(orjson.loads(document))


def document_fault(document: Mapping[str, Any]) -> str | None:
    """Why no effects can be made of a document; None when they can. The largest take a second, once."""
    encoded = orjson.dumps(document)
    return f"it is larger than {DOCUMENT_BYTES_MAX} bytes" if len(encoded) > DOCUMENT_BYTES_MAX else _fault_of(encoded)


@lru_cache(maxsize=64)
def _fault_of(document: bytes) -> str | None:
    try:
        found = read(document)
    except DocumentError as error:
        return str(error)
    except RecursionError:
        return "it is nested too deep"
    if not found:
        return "it has no operation with an operationId"
    checked: set[int] = set()
    for called in found.values():
        for schema in (called.arguments, *called.parts):
            if id(schema) in checked:
                continue
            checked.add(id(schema))
            try:
                Draft202012Validator.check_schema(schema)
            except SchemaError as error:
                return f"operation {called.name}: {error.message[:300]}"
            except RecursionError:
                return f"operation {called.name}: its schema is nested too deep"
    return None


def request_of(called: Called, arguments: Mapping[str, Any]) -> MadeRequest:
    """The request that an operation is, with arguments that meet its schema; raises Refusal or ValueError."""

    def filled(match: re.Match[str]) -> str:
        at = f"/arguments/path/{match[1]}"
        if not (found := _text(arguments["path"][match[1]], at)):
            detail = f"the path parameter {match[1]} is empty, and the path would be another's"
            raise refuse("INVALID_VALUE", detail, field=at, name=match[1])
        return quote(found, safe="")

    query = {
        name: _listed(value, f"/arguments/query/{name}", joined=name in called.joined)
        for name, value in arguments.get("query", {}).items()
    }
    headers = {name: _text(value, f"/arguments/header/{name}") for name, value in arguments.get("header", {}).items()}
    cookies = {name: _text(value, f"/arguments/cookie/{name}") for name, value in arguments.get("cookie", {}).items()}
    body: Json = {}
    if "body" in arguments and called.kind:
        body["content"], headers["Content-Type"] = content_of(called.kind, arguments["body"])
    elif "body" in arguments:
        body["json"] = arguments["body"]
    cookie = "; ".join(f"{name}={quote(value, safe=_AS_IT_IS)}" for name, value in cookies.items())
    path = _TEMPLATE.sub(filled, called.path)
    return MadeRequest.model_validate(
        {"method": called.method, "path": path, "query": query, "headers": headers, "cookie": cookie, **body}
    )


def _called(document: "_Document", name: str, method: Method, path: str, item: Json, operation: Json) -> Called:
    properties: Json = {}
    required: list[str] = []
    joined, unusable = set(), ""
    for parameter in _parameters(document, item, operation):
        place, its_name = parameter.get("in"), str(parameter.get("name"))
        needed = place == "path" or parameter.get("required") is True
        if place == "header" and its_name.lower() in _IGNORED:
            continue
        if place not in PLACES or "schema" not in parameter or not (place != "cookie" or _NAME.fullmatch(its_name)):
            unusable = unusable or (f"its {place} parameter {its_name} can not be sent" if needed else "")
            continue
        if place == "query" and parameter.get("explode") is False:
            joined.add(its_name)
        group = properties.setdefault(place, _group())
        group["properties"][its_name] = parameter["schema"]
        if needed:
            group["required"].append(its_name)
            required += [] if place in required else [place]
    body = chosen(operation.get("requestBody"), document.followed)
    if body.schema is not None and method not in ("GET", "HEAD"):
        properties["body"] = body.schema
        required += ["body"] if body.needed else []
    schema = {**_group(), "properties": properties, "required": required}
    parts = document.completed(schema)
    if len(orjson.dumps(schema)) > ARGUMENTS_BYTES_MAX:
        unusable = unusable or f"the schema of its arguments is larger than {ARGUMENTS_BYTES_MAX} bytes"
    if _has(schema, "patternProperties"):
        unusable = unusable or "its schema has patternProperties, which are not judged"
    missing = set(_TEMPLATE.findall(path)) - set(_object(_object(properties.get("path")).get("properties")))
    unusable = (
        unusable or body.unusable or (f"its path names {min(missing)}, which is no parameter of it" if missing else "")
    )
    said = operation.get("summary") or operation.get("description")
    about = said[:ABOUT_CHARS_MAX] if isinstance(said, str) else ""
    return Called(name, method, path, schema, frozenset(joined), unusable, parts, about, body.kind)


def under_defs(schema: Json) -> Json:
    """The same schema with what it refers to in `$defs`, where models look for it."""
    names: dict[str, str] = {}
    for reference in _references(schema):
        names.setdefault(reference, f"{_NOT_OF_A_NAME.sub('_', _parts(reference)[-1])}_{len(names)}")
    found = _renamed({name: value for name, value in schema.items() if name != "components"}, names)
    if names:
        found["$defs"] = {name: _renamed(_within(schema, reference), names) for reference, name in names.items()}
    return dict(found)


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_renamed(it, names) for it in value]
    if not isinstance(value, dict):
        return value
    return {
        name: f"#/$defs/{names[it]}" if name == "$ref" and isinstance(it, str) else _renamed(it, names)
        for name, it in value.items()
    }


def _within(schema: Json, reference: str) -> Any:
    here: Any = schema
    for part in _parts(reference):
        here = here[part]
    return here


def _group() -> Json:
    return {"type": "object", "properties": {}, "required": [], "additionalProperties": False}


def _parameters(document: "_Document", item: Json, operation: Json) -> list[Json]:
    """Those of the path, and those of the operation, which go before them."""
    found: dict[tuple[str, str], Json] = {}
    for given in (item.get("parameters"), operation.get("parameters")):
        for it in given if isinstance(given, list) else []:
            parameter = _object(document.followed(it))
            found[str(parameter.get("in")), str(parameter.get("name"))] = parameter
    return list(found.values())


class _Document:
    """A document, and what its parts refer to, looked for once."""

    def __init__(self, whole: Mapping[str, Any]) -> None:
        self.whole = whole
        self._known: dict[str, tuple[Any, list[str]]] = {}

    def followed(self, value: Any) -> Any:
        """What a reference leads to, where one stands in place of a path, a parameter or a body."""
        for _ in range(FOLLOWED_MAX):
            if not isinstance(value, dict) or not isinstance(value.get("$ref"), str):
                return value
            value = self._at(value["$ref"])[0]
        raise DocumentError("it refers to itself without end")

    def completed(self, schema: Json) -> list[Any]:
        """Put what a schema refers to where it refers to; answers these parts."""
        waiting, found = list(_references(schema)), dict[str, Any]()
        while waiting:
            reference = waiting.pop()
            if reference in found:
                continue
            if len(found) >= REFERENCES_MAX:
                raise DocumentError(f"an operation refers to more than {REFERENCES_MAX} parts")
            found[reference], more = self._at(reference)
            waiting += more
        for reference in sorted(found, key=len, reverse=True):  # the whole of a part after its own parts
            *places, last = _parts(reference)
            here = schema
            for part in places:
                here = here.setdefault(part, {})
            here[last] = found[reference]
        return list(found.values())

    def _at(self, reference: str) -> tuple[Any, list[str]]:
        """What stands there, and what that refers to."""
        if reference not in self._known:
            if not reference.startswith("#/components/"):
                raise DocumentError(f"it refers to {reference[:200]}; only its components can be referred to")
            here: Any = self.whole
            for part in _parts(reference):
                if not isinstance(here, Mapping) or part not in here:
                    raise DocumentError(f"it refers to {reference[:200]}, which is not in it")
                here = here[part]
            self._known[reference] = here, list(_references(here))
        return self._known[reference]


def _references(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        it = waiting.pop()
        if isinstance(it, dict):
            if isinstance(it.get("$ref"), str):
                yield it["$ref"]
            waiting += it.values()
        elif isinstance(it, list):
            waiting += it


def _has(value: Any, keyword: str) -> bool:
    waiting = [value]
    while waiting:
        it = waiting.pop()
        if isinstance(it, dict):
            if keyword in it:
                return True
            waiting += it.values()
        elif isinstance(it, list):
            waiting += it
    return False


def _parts(reference: str) -> list[str]:
    return [it.replace("~1", "/").replace("~0", "~") for it in reference.removeprefix("#/").split("/")]


def _newer(schema: Any) -> Any:
    """A schema of OpenAPI 3.0 in the words of JSON Schema 2020-12, as 3.1 has it."""
    if isinstance(schema, list):
        return [_newer(it) for it in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: _newer(value) for name, value in schema.items()}
    if isinstance(found.get("nullable"), bool):  # a property of that name is no flag
        del found["nullable"]
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(found.get(exclusive), bool) and found.pop(exclusive) and bound in found:
            found[exclusive] = found.pop(bound)
    if schema.get("nullable") is True and isinstance(found.get("type"), str):
        found["type"] = [found["type"], "null"]
        if isinstance(found.get("enum"), list):
            found["enum"] = [*found["enum"], None]
    return found


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _text(value: Any, field: str) -> str:
    """A parameter as text: lists with commas, as the styles `simple` and `form` have them."""
    if isinstance(value, list):
        return ",".join(_text(it, field) for it in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str | int | float):
        raise refuse("INVALID_VALUE", "a parameter is text, a number, true or false, or a list of these", field=field)
    return str(value)


def _listed(value: Any, field: str, *, joined: bool) -> str | list[str]:
    return [_text(it, field) for it in value] if isinstance(value, list) and not joined else _text(value, field)
