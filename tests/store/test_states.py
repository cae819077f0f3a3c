"""Pieces of a large state: little changes little, and nothing is lost."""

import random
from collections.abc import Callable

import orjson
import pytest

from controlplane.store.states import INLINE_BYTES_MAX, PIECE_BYTES_MAX, cut, keep, whole

SIZE = 600_000
DICE = random.Random(7)


def words() -> bytes:
    return orjson.dumps({f"field-{n}": {"text": f"word {DICE.random()}", "n": n} for n in range(SIZE // 60)})


def numbers() -> bytes:
    return orjson.dumps([DICE.randrange(10**9) for _ in range(SIZE // 10)])


def cyrillic() -> bytes:
    return orjson.dumps("".join(chr(DICE.randrange(0x430, 0x450)) for _ in range(SIZE // 2)))


def repeating() -> bytes:
    return orjson.dumps([f"{n} {DICE.random()} " * 25 for n in range(SIZE // 500)])


def greek() -> bytes:
    return orjson.dumps("".join(chr(DICE.randrange(0x3B1, 0x3C9)) for _ in range(SIZE // 2)))


@pytest.mark.parametrize("made", [words, numbers, greek, cyrillic, repeating])
def test_what_is_put_in_moves_no_later_piece(made: Callable[[], bytes]) -> None:
    """A thousand bytes more, in the midst of many, write a few pieces."""
    before = made()
    first = keep(before, None)
    at = next(n for n in range(SIZE // 3, SIZE) if before[n] & 0xC0 != 0x80)  # never within a character
    after = before[:at] + b"x" * 1_000 + before[at:]
    second = keep(after, first.chunks)
    assert len(first.put) > SIZE // PIECE_BYTES_MAX
    assert len(second.put) <= 6
    pieces = dict(first.put) | dict(second.put)
    for name in second.drop:
        del pieces[name]
    assert whole(second.chunks or "", pieces.items()).encode() == after


def test_a_small_state_is_text_in_its_row() -> None:
    """Up to 64 KiB there are no pieces; and a large state that becomes small takes its pieces away."""
    small, large = b"1" * INLINE_BYTES_MAX, b"1" * (INLINE_BYTES_MAX + 1)
    assert keep(small, None) == (small.decode(), None, (), ())
    kept = keep(large, None)
    assert kept.text is None
    assert set(keep(small, kept.chunks).drop) == {name for name, _ in kept.put}


def test_pieces_that_are_alike_are_one() -> None:
    """What repeats within a state is kept once, and comes back as often as it was there."""
    state = b"0" * (PIECE_BYTES_MAX * 5)
    kept = keep(state, None)
    assert len(kept.put) == 1
    assert len(cut(state)) == 5
    assert whole(kept.chunks or "", kept.put).encode() == state
