"""JSON Schema in a few lines: the shape of a value, for people who read.

`{a: string, b: integer 1…500 | null, …: string}`: `null` where it may be, `…` for fields of any
name. A model that was opened elsewhere, or lies too deep, is said by its name.
"""

import json
from collections.abc import Iterator
from typing import Any

Defs = dict[str, Any]
DEPTH_MAX = 4


def notation(schema: dict[str, Any], elsewhere: frozenset[str] = frozenset()) -> list[str]:
    """The lines of a schema; the models named in `elsewhere` are not opened."""
    defs = {name: part for name, part in schema.get("$defs", {}).items() if name not in elsewhere}
    return _lines(schema, defs, "", 0)


def fields(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Name, schema and whether it must be given, of each field of an object."""
    required = schema.get("required", [])
    for name, part in schema.get("properties", {}).items():
        yield name, _described(part), name in required


def field_type(part: dict[str, Any], defs: Defs) -> str:
    """The type of one field in a few words; objects by their name."""
    if "$ref" in part:
        target = defs.get(_name(part))
        return _name(part) if target is None or "properties" in target else field_type(target, defs)
    options = part.get("anyOf") or part.get("oneOf")
    if options:
        return " | ".join(dict.fromkeys(field_type(option, defs) for option in options))
    if "const" in part:
        return json.dumps(part["const"])
    if "enum" in part:
        return " | ".join(json.dumps(choice) for choice in part["enum"])
    if part.get("type") == "array":
        return f"[{field_type(part.get('items', {}), defs)}]"
    if part.get("type") == "object" or "properties" in part:
        values = [part.get("additionalProperties"), *part.get("patternProperties", {}).values()]
        inner = next((value for value in values if isinstance(value, dict)), None)
        return f"{{…: {field_type(inner, defs)}}}" if inner else "object"
    return f"{part.get('type', 'any')}{_bounds(part)}"


def _lines(part: dict[str, Any], defs: Defs, indent: str, depth: int) -> list[str]:
    """An object opened, field by field; anything else by its type."""
    target = defs[_name(part)] if "$ref" in part else part
    if "properties" not in target:
        return [indent + field_type(part, defs)]
    lines = [indent + "{"]
    for name, field, _ in fields(target):
        lines += _field(name, field, defs, indent + "  ", depth + 1)
    return [*lines, indent + "}"]


def _field(name: str, part: dict[str, Any], defs: Defs, indent: str, depth: int) -> list[str]:
    choices = _choices(part, defs)
    if choices and depth <= DEPTH_MAX:
        bodies = [_lines(it, defs, indent, depth)[1:-1] for it in choices]
        between = [[f"{indent}}} | {{", *body] for body in bodies[1:]]
        return [f"{indent}{name}: {{", *bodies[0], *(line for lines in between for line in lines), f"{indent}}}"]
    opened, before, after = _opened(part, defs)
    if opened is None or depth > DEPTH_MAX:
        return [f"{indent}{name}: {field_type(part, defs)}"]
    inner = _lines(opened, defs, indent, depth)
    return [f"{indent}{name}: {before}{{", *inner[1:-1], f"{indent}}}{after}"]


def _choices(part: dict[str, Any], defs: Defs) -> list[dict[str, Any]]:
    """The objects that a field is one of, if it is one of several, and of nothing else."""
    options = part.get("oneOf", [])
    objects = [it for it in options if "$ref" in it and "properties" in defs.get(_name(it), {})]
    return objects if len(objects) == len(options) else []


def _opened(part: dict[str, Any], defs: Defs) -> tuple[dict[str, Any] | None, str, str]:
    """The object in a field that shall be opened, with what stands around it."""
    if part.get("type") == "array":
        inner, before, after = _opened(part.get("items", {}), defs)
        return inner, f"[{before}", f"{after}]"
    options = part.get("anyOf", ())
    objects = [option for option in options if option.get("type") != "null"]
    if len(objects) == 1 and len(options) > 1:
        inner, before, after = _opened(objects[0], defs)
        return inner, before, f"{after} | null"
    if "$ref" in part and "properties" in defs.get(_name(part), {}):
        return part, "", ""
    return None, "", ""


def _described(part: dict[str, Any]) -> dict[str, Any]:
    """The field with the description that one of its options has, if it has none of its own."""
    said = [part, *part.get("anyOf", ())]
    found = next((one["description"] for one in said if one.get("description")), "")
    return {**part, "description": found} if found else part


def _bounds(part: dict[str, Any]) -> str:
    least = part.get("minimum", part.get("exclusiveMinimum"))
    most = part.get("maximum", part.get("exclusiveMaximum"))
    if least is None and most is None:
        return ""
    return f" {'' if least is None else least}…{'' if most is None else most}"


def _name(part: dict[str, Any]) -> str:
    return str(part["$ref"].rpartition("/")[2])
