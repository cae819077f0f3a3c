"""Input against its model: a validated value, or one Problem that points at what is wrong.

Input is JSON and is read strictly: no text that becomes a number, no unknown field. The first error
is told; a misspelt field is told before the field that is missing because of it. The pointer leads
into the input as it was given. No value of the input is ever repeated in a Problem, because any may
be a secret: names of fields, limits and patterns say enough. Pure.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args

import orjson
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from controlplane.resources.operation import Operation
from controlplane.resources.problems import refuse
from schemas.base import NAME_PATTERN
from schemas.connection import TAG
from schemas.problem import Next, Refusal
from schemas.resource import Kind

KINDS = get_args(Kind)
NAME_CHARS_MAX = 63
INT64_MIN, UINT64_MAX = -(2**63), 2**64 - 1
M = TypeVar("M", bound=BaseModel)
_RANGES = frozenset(
    {"greater_than", "greater_than_equal", "less_than", "less_than_equal", "multiple_of", "finite_number"}
    | {"too_long", "too_short", "string_too_long", "string_too_short", "int_parsing_size"}
)
_TAGS = ("union_tag_invalid", "union_tag_not_found")


def validate(operation: Operation, raw: Any) -> BaseModel:
    """The input as its model; raises the Refusal of the first error."""
    if not isinstance(raw, Mapping):
        found = type(raw).__name__
        raise refuse("NOT_AN_OBJECT", f"the input must be one JSON object, not {found}", next=_describe(operation))
    try:
        encoded = orjson.dumps(raw)
    except TypeError as error:
        raise _unencodable(operation, raw, error) from None
    try:
        return operation.input.model_validate_json(encoded, strict=True)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
    if (again := _with_whole_numbers(raw, errors)) is not None:
        return validate(operation, again)
    raise _refusal(operation, raw, _chosen(errors))


def _with_whole_numbers(raw: Any, errors: list[ErrorDetails]) -> Any:
    """The input with whole numbers where it has the like of 3.0, which JSON Schema takes for one; None if nowhere."""
    found = False
    for error in errors:
        path = _path(raw, error)
        value = _at(raw, path) if path else None
        if error["type"] == "int_type" and isinstance(value, float) and value.is_integer():
            raw, found = _replaced(raw, path, int(value)), True
    return raw if found else None


def _replaced(here: Any, path: Sequence[str | int], value: Any) -> Any:
    """A copy, along the path, with another value at its end."""
    if not path:
        return value
    copy = dict(here) if isinstance(here, Mapping) else list(here)
    copy[path[0]] = _replaced(here[path[0]], path[1:], value)  # type: ignore[index]
    return copy


def pointer(path: Sequence[str | int]) -> str:
    """A JSON pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _describe(operation: Operation) -> list[Next]:
    return [Next(operation="operations.describe", arguments={"name": operation.name}, why="shows the fields")]


def _chosen(errors: list[ErrorDetails]) -> ErrorDetails:
    """The first error; but a misspelt field before the missing one beside it."""
    first = errors[0]
    if first["type"] == "missing":
        for other in errors[1:]:
            if other["type"] == "extra_forbidden" and other["loc"][:-1] == first["loc"][:-1]:
                return other
    return first


def _refusal(operation: Operation, raw: Any, error: ErrorDetails) -> Refusal:
    path = _path(raw, error)
    reason = _reason(error, path, raw)
    context = {key: _plain(value) for key, value in error.get("ctx", {}).items() if key != "error"}
    name, parent = (str(path[-1]), str(path[-2]) if len(path) > 1 else "the input") if path else ("", "the input")
    if reason == "UNKNOWN_FIELD":
        detail, context = f"{parent} has no field {_short(name)}", {"name": _short(name), "of": _short(parent)}
    elif reason == "MISSING_FIELD":
        detail, context = f"{parent} needs the field {name}", {"name": name, "of": _short(parent)}
    elif reason == "UNKNOWN_KIND":
        detail, context = f"kind must be one of {', '.join(KINDS)}", {"kinds": list(KINDS)}
    elif reason == "INVALID_NAME":
        detail = f"{_short(name)} must be at most {NAME_CHARS_MAX} characters and match {NAME_PATTERN}"
        context = {"name": _short(name), "pattern": NAME_PATTERN, "max_length": NAME_CHARS_MAX}
    else:
        message = error["msg"].removeprefix("Value error, ")
        detail, context = (
            f"{_short(name) or 'the input'}: {message}",
            {"name": _short(name), "message": message, **context},
        )
    return refuse(reason, detail, field=pointer(path), next=_describe(operation), **context)


def _short(name: str) -> str:
    return name if len(name) <= 100 else name[:100] + "…"


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _reason(error: ErrorDetails, path: Sequence[str | int], raw: Any) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind in ("extra_forbidden", "missing"):
        return "UNKNOWN_FIELD" if kind == "extra_forbidden" else "MISSING_FIELD"
    if kind in _TAGS:
        return "UNKNOWN_KIND" if kind == "union_tag_invalid" else "MISSING_FIELD"
    if kind == "literal_error" and path[-1:] == ["kind"] and _at(raw, path) not in KINDS:
        return "UNKNOWN_KIND"
    if context.get("pattern") == NAME_PATTERN or (
        kind == "string_too_long" and context.get("max_length") == NAME_CHARS_MAX
    ):
        return "INVALID_NAME"
    return "OUT_OF_RANGE" if kind in _RANGES else "INVALID_VALUE"


def _path(raw: Any, error: ErrorDetails) -> list[str | int]:
    """Where in the input as given: the error's place without the union tags that validation put in."""
    place = list(error["loc"])
    if place[:1] == ["manifests"] and len(place) > 2 and place[2] in KINDS:
        del place[2]
    for index, part in enumerate(place[1:], 1):
        if place[index - 1] == "spec" and isinstance(part, str) and part.startswith(TAG):
            del place[index]
            break
    path: list[str | int] = []
    here = raw
    for index, part in enumerate(place):
        inside = _step(here, part)
        if index + 1 < len(place) and _step(inside, place[index + 1]) is _NOWHERE is not _step(here, place[index + 1]):
            continue  # a tag that is called as a field is
        if inside is not _NOWHERE:
            path.append(part)
            here = inside
        elif index == len(place) - 1 and error["type"] == "missing":
            path.append(part)
    return [*path, "kind"] if error["type"] in _TAGS else path


_NOWHERE = object()


def _step(here: Any, part: str | int) -> Any:
    if isinstance(here, Mapping):
        return here.get(part, _NOWHERE) if isinstance(part, str) else _NOWHERE
    if isinstance(here, list) and isinstance(part, int) and part < len(here):
        return here[part]
    return _NOWHERE


def _at(raw: Any, path: Sequence[str | int]) -> Any:
    for part in path:
        raw = _step(raw, part)
    return raw


def _unencodable(operation: Operation, raw: Any, error: TypeError) -> Refusal:
    """What no JSON can carry, by its place."""
    path, value = _culprit(raw, [], 0)
    next_ = _describe(operation)
    if isinstance(value, int) and not INT64_MIN <= value <= UINT64_MAX:
        return refuse("OUT_OF_RANGE", "a whole number must fit into 64 bits", field=pointer(path), next=next_)
    return refuse("INVALID_VALUE", f"not JSON: {error}", field=pointer(path), next=next_, error=str(error))


def _culprit(value: Any, path: list[str | int], depth: int) -> tuple[list[str | int], Any]:
    """The innermost part that can not be encoded; the outermost of what is nested too deeply."""
    if isinstance(value, Mapping) and depth < 100:
        inner: list[tuple[Any, Any]] = list(value.items())
    elif isinstance(value, list | tuple) and depth < 100:
        inner = list(enumerate(value))
    else:
        return path, value
    for key, part in inner:
        if not _encodes(part) and isinstance(key, str | int):
            return _culprit(part, [*path, key], depth + 1)
    return path, value


def _encodes(value: Any) -> bool:
    try:
        orjson.dumps(value)
    except TypeError:
        return False
    return True
