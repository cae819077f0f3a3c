"""The state of an agent at rest: text in its row, or, when it is large, pieces by the hash of their bytes.

A turn that changes little of a large state writes little: the pieces that it does not change stay. Where
one ends follows from the bytes before the cut, so that what is put in or taken out moves no later piece.
Pieces are an agent's own, are written and taken away by the commit that names them anew, and so belong to
its fence: there is never one too few, nor one that nobody names. Pure.
"""

import re
from base64 import b64encode
from collections.abc import Iterable
from hashlib import sha256
from typing import NamedTuple

from controlplane.store.batching import Many

INLINE_BYTES_MAX = 65_536
PIECE_BYTES_MIN, PIECE_BYTES_MAX = 4_096, 65_536

PUT = Many("INSERT INTO state_chunk (agent, hash, body) VALUES (?, ?, ?) ON CONFLICT (agent, hash) DO NOTHING")
DROP = Many("DELETE FROM state_chunk WHERE agent = ? AND hash = ?")
PIECES = "SELECT hash, body FROM state_chunk WHERE agent = ?"


def _class(rest: int) -> bytes:
    """A quarter of all bytes, and about a quarter of letters, and of digits."""
    return b"[" + b"".join(re.escape(bytes([it])) for it in range(256) if it % 4 == rest) + b"]"


# Once in some 16,384 bytes; where text repeats itself, and has no such place, in some 1,024; then in some 64.
# Of letters that take two bytes, the first ones have rests 2 and 3, or 0 and 1.
_RESTS = (2, 0, 3, 1, 2, 0, 3)
_CUTS = tuple(re.compile(b"".join(_class(rest) for rest in _RESTS[:many])) for many in (7, 5, 3))


class Kept(NamedTuple):
    """A state as its row has it, and the pieces that come and go with it."""

    text: str | None
    chunks: str | None
    put: tuple[tuple[str, bytes], ...] = ()
    drop: tuple[str, ...] = ()


def keep(state: bytes, before: str | None) -> Kept:
    """What is written of a state, where the row named these pieces before."""
    named = set((before or "").split())
    if len(state) <= INLINE_BYTES_MAX:
        return Kept(state.decode(), None, (), tuple(sorted(named)))
    pieces = cut(state)
    new = {name: body for name, body in pieces if name not in named}
    gone = named.difference(name for name, _ in pieces)
    return Kept(None, " ".join(name for name, _ in pieces), tuple(new.items()), tuple(sorted(gone)))


def cut(state: bytes) -> list[tuple[str, bytes]]:
    """The pieces in their order, each under its hash."""
    pieces, at = [], 0
    while at < len(state):
        tried = (it.search(state, at + PIECE_BYTES_MIN, at + PIECE_BYTES_MAX) for it in _CUTS)
        found = next((it for it in tried if it), None)
        end = found.end() if found else min(at + PIECE_BYTES_MAX, len(state))
        body = state[at:end]
        pieces.append((b64encode(sha256(body).digest()).decode(), body))
        at = end
    return pieces


def whole(chunks: str, pieces: Iterable[tuple[str, bytes]]) -> str:
    """The state again."""
    by_hash = dict(pieces)
    return b"".join(by_hash[name] for name in chunks.split()).decode()
