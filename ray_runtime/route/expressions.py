"""Filters (CEL) and transforms (JSONata): judged when they are proposed, run where messages pass. Pure.

The same data gives the same result: what reads a clock, chance, or text as code is refused by its name.
One evaluation has a bound of time and depth.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import cel
import orjson
from jsonata.jexception import JException
from jsonata.jsonata import Jsonata

EVALUATION_MS_MAX = 2_000
DEPTH_MAX = 200
RESULT_BYTES_MAX = 1_048_576
WHY_CHARS_MAX = 500
OVER_DATA = frozenset({"data", "envelope"})
OVER_RESULT = frozenset({"result"})
UNSTABLE = frozenset({"now", "millis", "random", "shuffle", "eval"})
FUNCTIONS = frozenset(
    {"size", "contains", "startsWith", "endsWith", "matches", "has", "int", "uint", "double", "string", "bool", "bytes",
     "type", "timestamp", "duration", "getFullYear", "getMonth", "getDayOfMonth", "getDate", "getDayOfWeek",
     "getDayOfYear", "getHours", "getMinutes", "getSeconds", "getMilliseconds", "dyn", "min", "max"}
)  # fmt: skip
_CACHED = 512


class Unfit(ValueError):  # noqa: N818 - a state of an expression or of data
    """Says in words what is wrong with an expression, or what it can not do with this data."""


def filter_fault(text: str, over: frozenset[str] = OVER_DATA) -> str | None:
    """What is wrong with a filter, in words; None when it can be used."""
    try:
        program = _filter(text)
    except Unfit as unfit:
        return str(unfit)
    names = program.references()
    bound = {"__result__", *_bound(text)}
    if strange := sorted(set(names["variables"]) - over - bound):
        return f"there is no {strange[0]}; a filter speaks of {', '.join(sorted(over))}"
    named = {it for it in names["functions"] if it.isidentifier()}
    if strange := sorted(named - FUNCTIONS):
        return f"there is no function {strange[0]}"
    return None


def transform_fault(text: str) -> str | None:
    """What is wrong with a transform, in words; None when it can be used."""
    try:
        found = set(_variables(_transform(text).ast))
    except Unfit as unfit:
        return str(unfit)
    if unstable := sorted(found & UNSTABLE):
        return f"${unstable[0]} would not give the same again"
    return None


def passes(text: str | None, **about: Any) -> bool:
    """Whether a filter lets it through; raises Unfit when it can not judge it."""
    if text is None:
        return True
    try:
        found = _filter(text).execute(about)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - the library raises whatever its expression met
        said = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise _unfit(f"the filter can not judge it: {said}") from None
    if not isinstance(found, bool):
        raise Unfit(f"the filter answers {type(found).__name__}, and neither true nor false")
    return found


def transformed(text: str | None, data: Any, envelope: Mapping[str, Any]) -> Any:
    """What a transform makes of data, as JSON; raises Unfit."""
    if text is None:
        return data
    expression = _transform(text)
    expression.environment.set_runtime_bounds(EVALUATION_MS_MAX, DEPTH_MAX)
    try:
        encoded = orjson.dumps(expression.evaluate(data, {"envelope": dict(envelope)}))
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - so does this one, and the data is a stranger's
        raise _unfit(f"the transform can not make anything of it: {error}") from None
    if len(encoded) > RESULT_BYTES_MAX:
        raise Unfit(f"the transform makes {len(encoded)} bytes of it, {RESULT_BYTES_MAX} at most")
    return orjson.loads(encoded)


def _unfit(said: str) -> Unfit:
    """In words that can be told: what data made of a text may be none (a half of a surrogate pair)."""
    return Unfit(said[:WHY_CHARS_MAX].encode(errors="replace").decode())


def fields_read(text: str) -> set[str]:
    """The names of fields that a transform mentions anywhere; all that it may read."""
    found = {str(it.value) for it in _symbols(_transform(text).ast) if getattr(it, "type", None) == "name"}
    wild = any(getattr(it, "type", None) in ("wildcard", "descendant") for it in _symbols(_transform(text).ast))
    whole = any(
        getattr(it, "type", None) == "variable" and it.value in ("", "$") for it in _symbols(_transform(text).ast)
    )
    return {"*"} if wild or whole else found


@lru_cache(_CACHED)
def _filter(text: str) -> Any:
    try:
        return cel.compile(text)
    except (ValueError, RecursionError) as error:
        raise Unfit(f"it is no CEL: {str(error)[:300]}") from None


@lru_cache(_CACHED)
def _transform(text: str) -> Any:
    try:
        return Jsonata(text)
    except (JException, LookupError, TypeError, ValueError, RecursionError, AttributeError) as error:
        raise Unfit(f"it is no JSONata: {str(error)[:300]}") from None


def _bound(text: str) -> set[str]:
    """Names that a macro binds, as `x` in `items.all(x, x > 1)`: the word before a comma, after an opening bracket."""
    parts = text.replace("(", " ( ").replace(",", " , ").split()
    return {parts[n + 1] for n, it in enumerate(parts[:-2]) if it == "(" and parts[n + 2] == ","}


def _variables(ast: Any) -> Iterator[str]:
    return (str(it.value) for it in _symbols(ast) if getattr(it, "type", None) == "variable")


def _symbols(ast: Any) -> Iterator[Any]:
    """Every symbol of a parsed expression, once."""
    seen: set[int] = set()
    left = [ast]
    while left:
        node = left.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, list | tuple):
            left += node
        elif hasattr(node, "__dict__") and hasattr(node, "type"):
            yield node
            left += [it for name, it in vars(node).items() if name != "_outer_instance"]
