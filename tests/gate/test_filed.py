"""What an open turn waits for, from what is filed of it."""

import orjson
import pytest

from controlplane.effects.filed import Filed, waiting
from schemas.branches import Place

HELD: Place = ("0.9", 0)


def _entry(at: str, kind: str, outcome: str | None = None, **body: object) -> Filed:
    branch, _, position = at.partition(":")
    return Filed(branch, int(position), kind, orjson.dumps(body).decode(), outcome)


def _order(*places: Place) -> Filed:
    return _entry("order:0", "order", came=places)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([], set()),
        ([_entry("0:3", "ask")], {("0", 3)}),
        ([_entry("0:3", "ask", "answered")], set()),
        ([_entry("0:3", "send")], set()),
        ([_entry("0:3", "effect")], set()),
        ([_entry("0.1:0", "sleep"), _entry("0.2:0", "effect")], set()),  # an intent that nobody is asked about
        ([_entry("0.1:0", "sleep"), _entry("0.9:0", "effect")], {("0.1", 0), HELD}),
        ([_entry("0.1:0", "sleep"), _entry("0.2:0", "effect", "succeeded")], set()),  # nobody heard of it
        ([_entry("0.1:0", "sleep"), _entry("0.2:0", "effect", "succeeded"), _order(("0.2", 0))], {("0.1", 0)}),
        (
            [_entry("0.1:0", "ask", "answered"), _entry("0.1:1", "ask"), _entry("0.1:2", "gather", members=2, needs=2)],
            {("0.1", 2)},
        ),
        ([_entry("0.1:0", "ask", "answered"), _entry("0.1:1", "gather", "gathered", members=1, needs=1)], set()),
    ],
)
def test_a_turn_waits_when_none_of_its_branches_can_go_on(entries: list[Filed], expected: set[Place]) -> None:
    """It is replayed when there is an answer that never reached it, or an effect that nobody is asked about."""
    assert waiting(entries, lambda place: place == HELD) == expected
