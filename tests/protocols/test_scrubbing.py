"""What may be kept of a text: without the secret, whole or in parts, and as characters."""

import pytest

from controlplane.protocols.mcp_http import Flight
from controlplane.protocols.mcp_sessions import reason_of
from controlplane.protocols.scrubbing import begun, encodable, is_first_half, scrubbed, shortened


@pytest.mark.parametrize(
    ("text", "characters"),
    [
        ("nothing of it", 0),
        ("", 0),
        ("this is ab", 2),
        ("this is abab", 4),
        ("ababa", 5),
        ("ababac", 0),
        ("it is a b%2", 0),
        ("ab+", 0),
        ("ababa%", 6),
    ],
)
def test_what_may_begin_the_secret_at_the_end(text: str, characters: int) -> None:
    """The longest of what may, as it is or as a URL has it."""
    assert begun(text, "ababa/c") == characters


def test_without_a_secret_nothing_begins() -> None:
    assert begun("anything", "") == 0
    assert scrubbed("anything", "") == "anything"


def test_what_is_cut_was_scrubbed_before() -> None:
    """So that no beginning of the secret is left at the cut."""
    assert shortened("x" * 8 + "secret and more", 10, "secret") == "x" * 8 + "[s"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("as it is é😀", "as it is é😀"),
        ("\ud83d\ude00", "😀"),
        ("\ude00\ud83dx\ud83d\ud83d\ude00\ud83d", "\ufffd\ufffdx\ufffd😀\ufffd"),
    ],
)
def test_halves_are_joined_or_replaced(text: str, kept: str) -> None:
    assert encodable(text) == kept


def test_a_text_ends_within_a_pair() -> None:
    assert [is_first_half(it) for it in ("", "x", "\ud83d", "\ud83d\ude00", "\ud83dx")] == [False] * 2 + [True] + [
        False
    ] * 2


@pytest.mark.parametrize("broke", [True, False])
def test_why_a_server_can_not_be_reached_has_no_beginning_of_the_secret(broke: bool) -> None:
    """Whatever lies at the edge of what is kept of it."""
    why, secret = f"{'x' * 270}correct horse battery staple", "correct horse battery staple"
    flight = Flight(broke=why if broke else "")
    assert "correct" not in reason_of(RuntimeError(why), flight, secret)
