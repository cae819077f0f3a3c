"""Whether data meets a channel's JSON Schema: pure, for operators' publishes and agents' alike.

A schema is JSON Schema (draft 2020-12 unless it names another). References are resolved inside the
schema only: nothing is ever fetched. `schema_fault` judges a schema when it is proposed;
`require_match` judges data when it is published, and points below `/data` at what does not fit.
"""

from functools import lru_cache
from typing import Any

import orjson
from jsonschema.exceptions import SchemaError, ValidationError, best_match
from jsonschema.protocols import Validator
from jsonschema.validators import Draft202012Validator, validator_for
from referencing.exceptions import Unresolvable
from referencing.jsonschema import EMPTY_REGISTRY

from controlplane.resources.problems import refuse

_SAMPLES: tuple[Any, ...] = (None, True, 0, "", [], {})  # one of each type: enough to meet an endless reference


def schema_fault(schema: dict[str, Any]) -> str | None:
    """What is wrong with a schema, in words; None when it can be used."""
    try:
        validator_for(schema, default=Draft202012Validator).check_schema(schema)
        validator = _validator(orjson.dumps(schema))
        for sample in _SAMPLES:
            validator.is_valid(sample)
    except SchemaError as error:
        return f"it is not a JSON Schema: {error.message}"
    except Unresolvable as error:
        return f"it refers to {error.ref}, which is not in it; nothing is fetched"
    except RecursionError:
        return "it refers to itself without end"
    return None


def require_match(schema: dict[str, Any], data: Any, namespace: str, name: str) -> None:
    """Refuse data that does not meet the schema of channel `namespace/name`."""
    try:
        worst = best_match(_validator(orjson.dumps(schema)).iter_errors(data))
    except (Unresolvable, RecursionError) as error:
        detail = f"the data can not be judged by the schema of {namespace}/{name}: {type(error).__name__}"
        raise refuse(
            "SCHEMA_MISMATCH", detail, field="/data", namespace=namespace, name=name, error=type(error).__name__
        ) from None
    if worst is not None:
        detail = f"the data does not meet the schema of {namespace}/{name}: {worst.message[:500]}"
        raise refuse(
            "SCHEMA_MISMATCH", detail, field=_pointer(worst), namespace=namespace, name=name, error=worst.message[:500]
        )


@lru_cache(maxsize=256)
def _validator(schema: bytes) -> Validator:
    loaded = orjson.loads(schema)
    kind = validator_for(loaded, default=Draft202012Validator)
    return kind(loaded, registry=EMPTY_REGISTRY)


def _pointer(error: ValidationError) -> str:
    parts = (str(part).replace("~", "~0").replace("/", "~1") for part in error.absolute_path)
    return "/".join(["/data", *parts])
