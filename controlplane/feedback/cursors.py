"""Cursors of the feedback log, sealed.

Positions of the log are counted over all namespaces, so two plain ones would tell a reader of one
namespace how much happened in the others. A reader therefore sees a position only as one block of
AES under the installation's key: opaque, always the same for the same position, and of ours alone:
anything else is refused, never guessed at. Positions inside the plane stay plain numbers.
"""

import base64
import binascii
import hashlib
import struct
from collections.abc import Sequence

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from controlplane.resources.problems import refuse
from schemas.base import INT64_MAX

_MARK = b"steward\x01"  # what an opened block must start with
_BLOCK = struct.Struct(">8sQ")


class Cursors:
    """Seals positions and opens what it sealed."""

    def __init__(self, key: bytes) -> None:
        """`key` is any secret of the installation; only a key derived from it is used."""
        derived = hashlib.sha256(b"steward feedback cursors\x00" + key).digest()[:16]
        self._cipher = Cipher(algorithms.AES(derived), modes.ECB())  # noqa: S305 - one unique block a position

    def seal(self, position: int) -> str:
        return self.seal_all([position])[0]

    def seal_all(self, positions: Sequence[int]) -> list[str]:
        """One pass of the cipher for a whole page."""
        sealing = self._cipher.encryptor()
        sealed = sealing.update(b"".join(_BLOCK.pack(_MARK, position) for position in positions))
        return [_text(sealed[at : at + 16]) for at in range(0, len(sealed), 16)]

    def open(self, cursor: str) -> int:
        """The position; raises INVALID_CURSOR for what is not one of ours."""
        try:
            block = base64.b32decode(cursor.upper() + "======", casefold=False)
        except (binascii.Error, ValueError):
            block = b""
        if len(block) == 16 and _text(block) == cursor:
            mark, position = _BLOCK.unpack(self._cipher.decryptor().update(block))
            if mark == _MARK and position <= INT64_MAX:
                return int(position)
        raise refuse(
            "INVALID_CURSOR",
            "after is no cursor of this installation's feedback log; leave it out to read from the beginning",
            field="/after",
        )


def _text(block: bytes) -> str:
    return base64.b32encode(block).decode().rstrip("=").lower()
