"""A transform, drafted from two shapes: what is named alike goes across, converted where types differ. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ANY = ""
_TYPES: tuple[tuple[type, str], ...] = (
    (bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"), (list, "array"), (dict, "object"),
)  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """An object's fields by name, with their type (empty where it is not known); which are needed; if others may be."""

    fields: Mapping[str, str]
    needed: frozenset[str] = frozenset()
    open: bool = True

    @classmethod
    def of_samples(cls, samples: Sequence[Mapping[str, Any]]) -> "Shape":
        """What all samples have."""
        names = set.intersection(*(set(it) for it in samples))
        return cls({name: _common(it[name] for it in samples) for name in sorted(names)})


def shape_of(schema: Mapping[str, Any]) -> Shape:
    """What a JSON Schema says of an object's fields, as far as it says it plainly."""
    properties = schema.get("properties") or {}
    needed = frozenset(str(it) for it in schema.get("required") or ())
    types = {name: _type(it) for name, it in properties.items()}
    return Shape(types, needed, schema.get("additionalProperties") is not False)


@dataclass(frozen=True)
class Draft:
    """A transform (None: none is needed), and what the sink needs that nothing of the source is."""

    text: str | None = None
    missing: tuple[str, ...] = ()


def drafted(source: Shape, sink: Shape, fixed: Iterable[str] = ()) -> Draft:
    """What brings the one to the other."""
    given = frozenset(fixed)
    wanted = {name: kind for name, kind in sink.fields.items() if name not in given}
    across = {
        name: _converted(name, source.fields[name], kind) for name, kind in wanted.items() if name in source.fields
    }
    parts = {name: part for name, part in across.items() if part is not None}
    missing = sorted(sink.needed - given - parts.keys())
    if missing:
        return Draft(missing=tuple(missing))
    as_it_is = all(part == _name(name) for name, part in parts.items()) and len(parts) == len(across)
    if not sink.fields or (as_it_is and (sink.open or source.fields.keys() <= sink.fields.keys())):
        return Draft()
    return Draft("{" + ", ".join(f'"{name}": {part}' for name, part in sorted(parts.items())) + "}")


def _converted(name: str, before: str, after: str) -> str | None:
    """The expression for a field of another type; None where nothing converts."""
    if any(it in name for it in '`"\\') or not name.isprintable():
        return None
    if ANY in (before, after) or before == after or (before, after) == ("integer", "number"):
        return _name(name)
    if after == "string" and before in ("integer", "number", "boolean"):
        return f"$string({_name(name)})"
    if after in ("number", "integer") and before == "string":
        return f"$number({_name(name)})" if after == "number" else f"$round($number({_name(name)}))"
    return f"$round({_name(name)})" if (before, after) == ("number", "integer") else None


def _name(name: str) -> str:
    return f"`{name}`"


def _type(schema: Any) -> str:
    found = schema.get("type") if isinstance(schema, Mapping) else None
    return found if isinstance(found, str) else ANY


def _common(values: Iterable[Any]) -> str:
    found = {next((name for kind, name in _TYPES if isinstance(it, kind)), ANY) for it in values}
    if found == {"integer", "number"}:
        return "number"
    return found.pop() if len(found) == 1 else ANY
