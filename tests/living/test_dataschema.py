"""A channel's schema is judged when it is declared, and data is judged when it is published."""

from typing import Any

import pytest

from controlplane.mesh.dataschema import data_fault, require_match, schema_fault
from schemas.problem import Refusal

READING: dict[str, Any] = {
    "type": "object",
    "properties": {"cpu": {"$ref": "#/$defs/percent"}, "a/b": {"type": "array", "items": {"type": "integer"}}},
    "required": ["cpu"],
    "$defs": {"percent": {"type": "number", "minimum": 0, "maximum": 100}},
}


def test_a_usable_schema_has_no_fault() -> None:
    """References within the schema are followed."""
    assert schema_fault(READING) is None


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "no-such-type"},
        {"$ref": "http://127.0.0.1:9/never-fetched.json"},
        {"$ref": "#/nowhere"},
        {"$ref": "#"},
    ],
)
def test_an_unusable_schema_says_why(schema: dict[str, Any]) -> None:
    """What is no schema, refers outside of itself, or refers to itself without end has a fault in words."""
    assert schema_fault(schema)


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({}, "/data"),
        ("text", "/data"),
        ({"cpu": 101}, "/data/cpu"),
        ({"cpu": 1, "a/b": [1, "x"]}, "/data/a~1b/1"),
    ],
)
def test_data_that_does_not_fit_is_refused_where_it_does_not(data: Any, field: str) -> None:
    """SCHEMA_MISMATCH points below /data."""
    with pytest.raises(Refusal) as refused:
        require_match(READING, data, "default", "readings")
    assert (refused.value.problem.reason, refused.value.problem.field) == ("SCHEMA_MISMATCH", field)


def test_data_that_fits_passes() -> None:
    """Fitting data is not refused."""
    require_match(READING, {"cpu": 12.5, "a/b": []}, "default", "readings")


def test_a_pattern_takes_time_that_is_linear_in_the_text() -> None:
    """A pattern that makes a backtracking engine run for ever is judged at once; one that could not be is refused."""
    schema = {"type": "string", "pattern": "^(a+)+$"}
    assert schema_fault(schema) is None
    with pytest.raises(Refusal) as refused:
        require_match(schema, "a" * 5000 + "!", "default", "log")
    assert refused.value.problem.reason == "SCHEMA_MISMATCH"
    require_match({"pattern": "b+"}, "aabbcc", "default", "log")
    assert "pattern" in (schema_fault({"pattern": "(?=a)b"}) or "")
    endless = {"type": "object", "patternProperties": {"^(a+)+$": {}}, "additionalProperties": False}
    assert "can not be judged" in (data_fault(endless, {"a" * 60 + "!": 1}) or "")
    assert "patternProperties" in (schema_fault({"properties": {"x": {"patternProperties": {"^a": {}}}}}) or "")
