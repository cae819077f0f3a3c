"""One flat input from path, query and body, the same that every other surface gives.

Query strings are text; each value is read by the JSON type that its field has, and what can not be
read so is handed on as it is: the one validator then says what is wrong, in the same words as on
every surface. Nothing is validated here. A field that comes twice must be the same twice.
"""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.parse import parse_qsl

from controlplane.mesh.strict import parse_json_now
from controlplane.resources.catalogue import OPERATIONS
from controlplane.resources.problems import refuse
from schemas.problem import Refusal

PARAMETERS_MAX = 100
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
_SCALARS = frozenset({"integer", "number"})


def flat_input(operation: str, path: Mapping[str, str], query: bytes, body: Any, *, has_body: bool) -> dict[str, Any]:
    """The input of an operation, merged."""
    merged: dict[str, Any] = dict(as_object(body)) if has_body else {}
    for name, text in _pairs(query):
        value = read_text(text, json_types(operation).get(name, frozenset()))
        _merge(merged, name, _labels(text) if name == "labels" and value == text else value, "query")
    for name, text in path.items():
        _merge(merged, name, text, "path")
    return merged


def as_object(body: Any) -> dict[str, Any]:
    """The body, which must be one object."""
    if isinstance(body, dict):
        return body
    found = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}.get(type(body), "a number")
    raise refuse("NOT_AN_OBJECT", f"the input must be one JSON object, not {found}", field="", found=found)


def _pairs(query: bytes) -> list[tuple[str, str]]:
    if not query:
        return []
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=PARAMETERS_MAX)
    except UnicodeError:
        raise refuse("INVALID_VALUE", "the query string is not UTF-8") from None
    except ValueError:
        raise refuse(
            "TOO_LARGE", f"the query string holds more than {PARAMETERS_MAX} parameters", parameters_max=PARAMETERS_MAX
        ) from None
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise _twice(name, "query")
    return pairs


def _merge(merged: dict[str, Any], name: str, value: Any, place: str) -> None:
    if name in merged and merged[name] != value:
        raise _twice(name, place)
    merged[name] = value


def _twice(name: str, place: str) -> Refusal:
    return refuse(
        "INVALID_VALUE",
        f"{name} is given more than once, and differs; the {place} is one of the places",
        field=f"/{name}",
        name=name,
        place=place,
    )


def read_text(text: str, types: frozenset[str]) -> Any:
    """The JSON value that a query's text stands for, where its field takes that type; else the text."""
    if types & _SCALARS and _NUMBER.fullmatch(text):
        return _parsed(text)
    if "boolean" in types and text in ("true", "false"):
        return text == "true"
    if types & {"object", "array"} and text[:1] in ("{", "["):
        return _parsed(text)
    return text


def _parsed(text: str) -> Any:
    try:
        return parse_json_now(text.encode())
    except Refusal:
        return text


def _labels(text: str) -> Any:
    """`k=v,k2=v2` as an object; the text where a part is none or a key comes twice."""
    pairs = [part.partition("=") for part in text.split(",")]
    found = {key.strip(): value.strip() for key, mark, value in pairs if mark}
    return found if len(found) == len(pairs) else text


@cache
def json_types(operation: str) -> Mapping[str, frozenset[str]]:
    """The JSON types that each input field of an operation takes."""
    schema = OPERATIONS[operation].input.model_json_schema()
    definitions = schema.get("$defs", {})
    return {name: frozenset(_types(field, definitions)) for name, field in schema.get("properties", {}).items()}


def _types(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> list[str]:
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    own = schema.get("type", [])
    found = [own] if isinstance(own, str) else list(own)
    for branch in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        found += _types(branch, definitions)
    return found
