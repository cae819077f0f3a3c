"""What of a poll's rows is new, and whether they can be in order."""

from typing import Any

import pytest

from ray_runtime.route.cursors import alike, in_order, ordered
from ray_runtime.route.polling import Progress, rows_of
from schemas.problem import Refusal
from schemas.route import Poll

POLL = Poll(connection="shop", statement="SELECT", cursor="c", id="i", begin=0)
ORDERED: list[list[Any]] = [
    [], [1, 1.5, 2], ["9", "10", "100"], ["-10", "-9.5", "1E-7", "1E+2"], [1.5, "inf"], [2**63, "18446744073709551616"],
    ["1", "inf", "NaN"], ["2026-10-25T02:30:00+02:00", "2026-10-25T02:10:00+01:00"], ["2026-10-25", "2026-10-26"],
    ["2026-10-25T02:10:00+01:00", "2026-10-25T02:30:00+02:00"], ["007", "01", "7"], ["a", "b", "C"], ["B", "a"],
    ["A", "B", "a"], ["a", "A", "a", "b"], ["e", "\u00e9", "e"], [7, "a"], ["A", "B"],
]  # fmt: skip
NOT_ORDERED: list[list[Any]] = [
    [2, 1], ["100", "10"], ["10", "9.5", "100"], ["2026-10-26T00:00:00+00:00", "2026-10-25T00:00:00+00:00"],
    ["2026-10-26", "2026-10-25"], ["b", "a", "b"], ["z", "kept"], [7, "a", 7],
]  # fmt: skip


@pytest.mark.parametrize("values", ORDERED, ids=str)
def test_rows_that_can_be_in_order_are_taken(values: list[Any]) -> None:
    """By numbers, by moments, or by a collation that nobody here knows."""
    assert in_order(values, "kept")


@pytest.mark.parametrize("values", NOT_ORDERED, ids=str)
def test_rows_that_are_in_no_order_are_not(values: list[Any]) -> None:
    """Also where only what was kept shows it, which comes first."""
    assert not in_order(values, "kept")


def test_values_are_told_apart_by_what_they_are() -> None:
    """Not by how they are written; a number is before a later one, and never before a text."""
    assert alike("9.0", "9.00")
    assert alike(9, "9.00")
    assert alike("2026-10-25T02:30:00+02:00", "2026-10-25T00:30:00+00:00")
    assert not alike("a", "b")
    assert not alike(1, "a")
    assert ordered("9", "10")
    assert not ordered("10", 9)
    assert not ordered("b", 9)
    assert not ordered(9, "b")


def taken(place: Progress, *rows: tuple[Any, Any]) -> list[tuple[Any, Any]]:
    """What is new of these rows, which is taken then; the place is kept and read again in between."""
    found = rows_of(POLL, place, {"rows": [{"c": c, "i": i} for c, i in rows], "truncated": False})
    for it in found:
        place.took(it)
    kept = Progress.model_validate_json(place.model_dump_json())
    assert kept == place
    return [(it.cursor, it.id) for it in found]


def test_what_is_written_in_two_ways_comes_once() -> None:
    """Whichever the database takes for one; and what it does not is not lost, though its ids are the same."""
    place = Progress()
    rows: list[tuple[Any, Any]] = [("9.0", 1), ("9.00", 2), ("9.0", 3)]
    assert taken(place, *rows) == rows
    assert taken(place, *rows, ("9.00", 4)) == [("9.00", 4)]
    assert taken(place, *rows, ("9.00", 4)) == []
    assert taken(place, ("9.00", 4), ("10", 4)) == [("10", 4)]
    versions: list[tuple[Any, Any]] = [("1.1", 1), ("1.10", 1)]
    assert taken(place := Progress(), *versions) == versions
    assert taken(place, *versions) == []


def test_a_poll_goes_back_to_a_smaller_number_alone() -> None:
    """However it is written."""
    place = Progress(cursor="10", ids=[1])
    with pytest.raises(Refusal):
        place.set_back("100")
    place.set_back("9")
    assert (place.cursor, place.reached) == ("9", ("10", [1]))
