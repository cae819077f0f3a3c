"""Arguments for a tool from its input schema: valid ones, and from them wrong and hostile ones, as JSON text.

Text, because some of what a client may send is no value of JSON at all: a key twice, half a character, NaN.
"""

import json
from datetime import UTC
from typing import Any

from hypothesis import strategies as st

from controlplane.operations.discovery import schemas_of
from controlplane.resources.catalogue import OPERATIONS
from fuzz.mcp_promise import validator
from fuzz.rules import REPLICAS_MAX, WAITS_UNASKED

Schema = dict[str, Any]
OF_NOUNS = {"agents": "echo", "channels": "reports", "secrets": "inventory", "fleets": "echoes"}  # as in the examples
NAMES = (*OF_NOUNS.values(), "none-such")
SHORT_S = 0.05
_LEAF = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
ANY = st.recursive(
    _LEAF | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def valid(schema: Schema, known: dict[str, list[Any]]) -> st.SearchStrategy[Any]:
    """What the schema takes; where a field's name is known, often a value that was seen under it."""
    return _of(schema, schema, known).filter(validator(schema).is_valid).map(lambda given: shortened(given, schema))


def valid_for(tool: str, schema: Schema, known: dict[str, list[Any]]) -> st.SearchStrategy[Any]:
    """The same for a tool; for one that stands for an operation, what that operation takes."""
    if tool == "propose":
        return valid(schemas_of("resources.propose")[0], known)
    if tool == "act":
        return st.sampled_from(schema["properties"]["operation"]["enum"]).flatmap(
            lambda it: _call("operation", it, known)
        )
    if tool == "operations_call":
        names = sorted(set(OPERATIONS) - {"operations.call"})
        return st.sampled_from(names).flatmap(lambda it: _call("name", it, known))
    return valid(schema, _names_for(tool.replace("_", ".", 1), known))


def _names_for(operation: str, known: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """What is known, with names of what the operation is about."""
    if operation == "operations.describe":
        return known | {"name": sorted(OPERATIONS)}
    noun = operation.partition(".")[0]
    return known | {"name": [OF_NOUNS[noun], *known["name"][-3:]]} if noun in OF_NOUNS else known


def _call(field: str, operation: str, known: dict[str, list[Any]]) -> st.SearchStrategy[Any]:
    """A call by name, of which no wait is long."""
    given = valid(schemas_of(operation)[0], _names_for(operation, known)).map(
        lambda it: {field: operation, "arguments": it}
    )
    return given.map(lambda it: shortened(it, {}))


def _of(schema: Schema, root: Schema, known: dict[str, list[Any]]) -> st.SearchStrategy[Any]:
    if "$ref" in schema:
        return _of(root["$defs"][schema["$ref"].rpartition("/")[2]], root, known)
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            return st.one_of(*(_of(branch, root, known) for branch in schema[choice]))
    kind = schema.get("type")
    make = {"object": _object, "array": _array, "string": _string, "integer": _integer, "number": _number}.get(
        str(kind)
    )
    if make is not None:
        return make(schema, root, known)
    return {"boolean": st.booleans(), "null": st.none()}.get(str(kind), ANY)


def _object(schema: Schema, root: Schema, known: dict[str, list[Any]]) -> st.SearchStrategy[Any]:
    fields = {name: _field(name, part, root, known) for name, part in schema.get("properties", {}).items()}
    required = set(schema.get("required", ())) & set(fields)
    named = st.fixed_dictionaries(
        {name: fields[name] for name in required}, optional={k: v for k, v in fields.items() if k not in required}
    )
    if fields and (apart := _apart(schema, root, known)):
        return st.one_of(apart)
    more = schema.get("additionalProperties", True)
    if more is False or fields:
        return named
    values = _of(more, root, known) if isinstance(more, dict) else ANY
    least = schema.get("minProperties", 0)
    keys = st.from_regex(r"\A[a-z][a-z0-9]{0,6}\Z") | st.sampled_from(["echo.py", "app"])
    return st.dictionaries(keys, values, min_size=least, max_size=least + 2)


def _apart(schema: Schema, root: Schema, known: dict[str, list[Any]]) -> list[st.SearchStrategy[Any]]:
    """Objects with a field that shuts others out, and objects without it; what else depends is left to validity."""
    plain = {key: part for key, part in schema.items() if key != "dependentSchemas"}
    found = []
    for name, closing in schema.get("dependentSchemas", {}).items():
        shut = {key for key, part in closing.get("properties", {}).items() if part is False}
        if not shut:
            continue
        own = plain["properties"]
        with_it = plain | {"properties": {k: v for k, v in own.items() if k not in shut}, "required": [name]}
        without = plain | {"properties": {k: v for k, v in own.items() if k != name}}
        found += [_object(with_it, root, known), _object(without, root, known)]
    return found


def _field(name: str, schema: Schema, root: Schema, known: dict[str, list[Any]]) -> st.SearchStrategy[Any]:
    own = _of(schema, root, known)
    if name in ("timeout_s", "wait_s"):
        return st.just(SHORT_S)
    if name == "replicas":
        return st.integers(0, REPLICAS_MAX)
    seen = tuple(known.get(name, ()))
    return st.integers(0, 3).flatmap(lambda it: st.sampled_from(seen) if it < 3 else own) if seen else own


def _array(schema: Schema, root: Schema, known: dict[str, list[Any]]) -> st.SearchStrategy[Any]:
    least = schema.get("minItems", 0)
    return st.lists(_of(schema.get("items", {}), root, known), min_size=least, max_size=least + 2)


def _string(schema: Schema, root: Schema, known: dict[str, list[Any]]) -> st.SearchStrategy[Any]:
    if schema.get("format") == "date-time":
        return st.datetimes(timezones=st.just(UTC)).map(lambda it: it.isoformat())
    pattern = schema.get("pattern")
    if pattern is not None and pattern != r"^[^\x00]*$":
        return st.from_regex(pattern, fullmatch=True)
    return st.text(max_size=min(30, schema.get("maxLength", 30)))


def _integer(schema: Schema, root: Schema, known: dict[str, list[Any]]) -> st.SearchStrategy[Any]:
    return st.integers(schema.get("minimum", -(2**40)), schema.get("maximum", 2**40))


def _number(schema: Schema, root: Schema, known: dict[str, list[Any]]) -> st.SearchStrategy[Any]:
    low, high = schema.get("minimum", schema.get("exclusiveMinimum", -1e9)), schema.get("maximum", 1e9)
    return st.floats(low, high, exclude_min="exclusiveMinimum" in schema, allow_nan=False)


HOSTILE_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 0.5, 2**63, -(2**63), 2**64 - 1, 1e308, "", " ", [], {}, [[]], [None], {"a": None}),
    *("x" * 5000, "é" * 3000, "\U0001f600" * 500, "\x00", "a\x00b", "\x1b[31m", "a\r\nb", "\u202eecho", "\ufeffecho"),
    *(
        "\u0435cho",
        "\uff45cho",
        "echo\u200b",
        "ECHO",
        "echo ",
        "../echo",
        "echo/../x",
        "%2e%2e",
        "';--",
        "${jndi:x}",
        "{{7*7}}",
    ),
    *("__proto__", "constructor", "__class__", "toString", "null", "true", "NaN", "1e999", "-0", "default/echo", "*"),
    *("a" * 64, "-a", "steward://Agent/default/echo", "file:///etc/passwd", "chg_0", "plan_0", "evt_1"),
)
HOSTILE_KEYS = (
    "__proto__",
    "constructor",
    "",
    " ",
    "\x00",
    "a/b~c",
    "name ",
    "Name",
    "n\u0430me",
    "x" * 300,
    "self",
    "raw",
)
DEEP = "[" * 100 + "]" * 100
RAW_VALUES = (
    *("NaN", "Infinity", "-Infinity", "-0", "1e999", "18446744073709551616", "1" * 400, '"\\ud800"', '"a\\udfffb"'),
    *(
        DEEP,
        '{"a":' * 70 + "1" + "}" * 70,
        '{"name":"a","name":"b"}',
        '{"__proto__":{"x":1}}',
        '"\\u0000"',
        "[" * 60 + "]" * 60,
    ),
)
HELD = "\ufdd0held\ufdd1"  # stands in a value's place until its text is put there


@st.composite
def hostile(draw: st.DrawFn, tool: str, schema: Schema, known: dict[str, list[Any]]) -> str:
    """Valid arguments with one or two things wrong, as text."""
    given = draw(valid_for(tool, schema, known))
    seen = {name: tuple(values) for name, values in known.items() if values}
    for _ in range(draw(st.integers(1, 2))):
        given = draw(_spoiled(given, seen))
    text = _text(shortened(given, schema))
    return text.replace(_text(HELD), draw(st.sampled_from(RAW_VALUES)))


@st.composite
def _spoiled(draw: st.DrawFn, given: Any, known: dict[str, tuple[Any, ...]]) -> Any:
    """One thing of it made wrong, at any depth."""
    if not isinstance(given, dict) or draw(st.integers(0, 30)) == 0:
        return draw(st.sampled_from([*HOSTILE_VALUES, HELD]))
    found = dict(given)
    inner = [key for key, value in found.items() if isinstance(value, dict)]
    how = draw(st.sampled_from(["replace", "hold", "drop", "add", "swap", *(["within"] * 2 if inner else [])]))
    key = draw(st.sampled_from(sorted(found))) if found else "name"
    if how == "within":
        key = draw(st.sampled_from(inner))
        found[key] = draw(_spoiled(found[key], known))
    elif how == "drop":
        found.pop(key, None)
    elif how == "add":
        found[draw(st.sampled_from(HOSTILE_KEYS))] = draw(st.sampled_from([*HOSTILE_VALUES, HELD]))
    elif how == "swap" and known:  # what belongs to another field, or to somebody else
        found[key] = draw(st.sampled_from(known[draw(st.sampled_from(sorted(known)))]))
    else:
        found[key] = HELD if how == "hold" else draw(st.sampled_from(HOSTILE_VALUES))
    return found


def shortened(given: Any, schema: Schema) -> Any:
    """The same, but that no wait that is allowed is long, nor one that is not spoken of."""
    if not isinstance(given, dict):
        return given
    found = dict(given)
    if "timeout_s" in schema.get("properties", {}):
        found.setdefault("timeout_s", SHORT_S)
    for name in ("timeout_s", "wait_s"):
        value = found.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and SHORT_S < value <= 300:
            found[name] = SHORT_S
    if isinstance(inner := found.get("arguments"), dict):  # of a call by name
        waits = str(found.get("operation", found.get("name"))) in WAITS_UNASKED
        found["arguments"] = shortened(inner, {"properties": {"timeout_s": {}}} if waits else {})
    return found


def _text(value: Any) -> str:
    return json.dumps(value)


def valid_text(tool: str, schema: Schema, known: dict[str, list[Any]]) -> st.SearchStrategy[str]:
    return valid_for(tool, schema, known).map(_text)
