"""Whether data meets a channel's JSON Schema: pure, for operators' publishes and agents' alike.

A schema is JSON Schema (draft 2020-12 unless it names another). References are resolved inside the
schema only: nothing is ever fetched. Patterns run on an engine whose time is linear in the text, because
the gate judges on its only loop; `patternProperties`, which would not, are refused. For the same reason a
schema has a size, and one judgement a number of steps, so that references that multiply end in a refusal
and not in a stall. `schema_fault` judges a schema when it is proposed; `require_match` judges data when it
is published, and points below `/data` at what does not fit.
"""

import threading
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import orjson
from jsonschema.exceptions import SchemaError, ValidationError, best_match
from jsonschema.protocols import Validator
from jsonschema.validators import Draft202012Validator, extend, validator_for
from pydantic_core import SchemaError as PydanticSchemaError
from pydantic_core import SchemaValidator, core_schema
from pydantic_core import ValidationError as PydanticValidationError
from referencing.exceptions import Unresolvable
from referencing.jsonschema import EMPTY_REGISTRY

from controlplane.resources.problems import refuse

SCHEMA_BYTES_MAX = 65_536
STEPS_MAX = 100_000  # keywords applied, values compared
_SAMPLES: tuple[Any, ...] = (None, True, 0, "", [], {})  # one of each type: enough to meet an endless reference


def schema_fault(schema: dict[str, Any]) -> str | None:
    """What is wrong with a schema, in words; None when it can be used."""
    encoded = orjson.dumps(schema)
    if len(encoded) > SCHEMA_BYTES_MAX:
        return f"it is larger than {SCHEMA_BYTES_MAX} bytes"
    try:
        validator_for(schema, default=Draft202012Validator).check_schema(schema)
        for keyword, value in _keywords(schema):
            if keyword == "patternProperties":
                return "patternProperties are not taken; name the properties, or use propertyNames with a pattern"
            _regex(value)
        validator = _validator(encoded)
        for sample in _SAMPLES:
            _steps.left = STEPS_MAX
            validator.is_valid(sample)
    except SchemaError as error:
        return f"it is not a JSON Schema: {error.message}"
    except PydanticSchemaError as error:
        return f"a pattern can not be used: {str(error).splitlines()[0]}"
    except Unresolvable as error:
        return f"it refers to {error.ref}, which is not in it; nothing is fetched"
    except _TooCostlyError:
        return f"it takes more than {STEPS_MAX} steps to judge by it"
    except RecursionError:
        return "it refers to itself without end"
    return None


def data_fault(schema: dict[str, Any], data: Any) -> str | None:
    """What is wrong with data by a schema, and where; None when it meets it."""
    _steps.left = STEPS_MAX
    try:
        worst = best_match(_validator(orjson.dumps(schema)).iter_errors(data))
    except _TooCostlyError:
        return f"it takes more than {STEPS_MAX} steps to judge"
    except (Unresolvable, RecursionError, PydanticSchemaError, _UnjudgeableError) as error:
        return f"it can not be judged: {type(error).__name__}"
    return None if worst is None else f"{worst.json_path}: {worst.message[:500]}"


def require_match(schema: dict[str, Any], data: Any, namespace: str, name: str, steps: int = STEPS_MAX) -> None:
    """Refuse data that does not meet the schema of channel `namespace/name`, or can not be judged in so many steps."""
    _steps.left = steps
    try:
        worst = best_match(_validator(orjson.dumps(schema)).iter_errors(data))
    except _TooCostlyError:
        detail = f"the data takes more than {steps} steps to judge by the schema of {namespace}/{name}"
        raise refuse(
            "SCHEMA_MISMATCH", detail, field="/data", namespace=namespace, name=name, steps_max=steps
        ) from None
    except (Unresolvable, RecursionError, PydanticSchemaError, _UnjudgeableError) as error:
        detail = f"the data can not be judged by the schema of {namespace}/{name}: {type(error).__name__}"
        raise refuse(
            "SCHEMA_MISMATCH", detail, field="/data", namespace=namespace, name=name, error=type(error).__name__
        ) from None
    if worst is not None:
        detail = f"the data does not meet the schema of {namespace}/{name}: {worst.message[:500]}"
        raise refuse(
            "SCHEMA_MISMATCH", detail, field=_pointer(worst), namespace=namespace, name=name, error=worst.message[:500]
        )


class _Steps(threading.local):
    """What is left of the judgement that this thread makes."""

    left = STEPS_MAX


_steps = _Steps()


class _TooCostlyError(Exception):
    """A judgement that takes too many steps."""


class _UnjudgeableError(Exception):
    """A schema with `patternProperties`, which no validator runs in bounded time: it is not used."""


def _spend(steps: int) -> None:
    _steps.left -= steps
    if _steps.left < 0:
        raise _TooCostlyError


@lru_cache(maxsize=256)
def _validator(schema: bytes) -> Validator:
    loaded = orjson.loads(schema)
    if any(keyword == "patternProperties" for keyword, _ in _keywords(loaded)):
        raise _UnjudgeableError
    return _counting(validator_for(loaded, default=Draft202012Validator))(loaded, registry=EMPTY_REGISTRY)


@lru_cache(maxsize=16)
def _counting(kind: Any) -> Any:
    """The draft's validator, with our patterns, and every keyword counted."""
    keywords: dict[str, Any] = {**kind.VALIDATORS, "pattern": _pattern}
    if "uniqueItems" in keywords:
        keywords["uniqueItems"] = _unique
    return extend(kind, {name: _counted(keyword) for name, keyword in keywords.items()})


def _counted(keyword: Any) -> Any:
    def counted(validator: Validator, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        _spend(1 + (len(value) if isinstance(value, list | dict) else 0))
        yield from keyword(validator, value, instance, schema) or ()

    return counted


def _unique(_: Validator, wanted: Any, instance: Any, __: Any) -> Iterator[ValidationError]:
    """The keyword `uniqueItems`, in one pass."""
    if wanted and isinstance(instance, list):
        _spend(len(instance))
        if len({_frozen(item) for item in instance}) < len(instance):
            yield ValidationError("the items are not all different")


def _frozen(value: Any) -> Any:
    """A value as one that can be compared by hash; true is not 1."""
    if isinstance(value, dict):
        return frozenset((key, _frozen(inner)) for key, inner in value.items())
    if isinstance(value, list):
        return tuple(_frozen(inner) for inner in value)
    return (bool, value) if isinstance(value, bool) else value


def _pattern(_: Validator, pattern: str, instance: Any, __: Any) -> Iterator[ValidationError]:
    """The keyword `pattern`, found anywhere in the text."""
    if isinstance(instance, str):
        try:
            _regex(pattern).validate_python(instance)
        except PydanticValidationError:
            yield ValidationError(f"{instance[:100]!r} does not match {pattern!r}")


@lru_cache(maxsize=1024)
def _regex(pattern: str) -> SchemaValidator:
    """The pattern on Rust's regex engine, by way of pydantic-core; raises SchemaError for what it does not know."""
    return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))


def _keywords(schema: Any) -> Iterator[tuple[str, Any]]:
    """Every `pattern` and `patternProperties` of a schema, wherever it stands."""
    if isinstance(schema, list):
        for item in schema:
            yield from _keywords(item)
    elif isinstance(schema, dict):
        for keyword, value in schema.items():
            if (keyword == "pattern" and isinstance(value, str)) or keyword == "patternProperties":
                yield keyword, value
            yield from _keywords(value)


def _pointer(error: ValidationError) -> str:
    parts = (str(part).replace("~", "~0").replace("/", "~1") for part in error.absolute_path)
    return "/".join(["/data", *parts])
