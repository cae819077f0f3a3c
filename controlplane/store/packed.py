"""Documents at rest, packed: deflate (RFC 1950) with a dictionary of what such documents are made of.

A plan names every field of every spec that it writes, some of them twice, and all of it is kept with its
change for good. Packed, a plan of one agent takes a sixth of its text, one of a hundred agents a thirtieth.
A packed document says by its header which dictionary it was packed with; a dictionary that was released
stays as it is for ever, a better one is added beside it. What was kept as text is read as text.
"""

import zlib
from pathlib import Path
from typing import Any

from sqlalchemy import Dialect, LargeBinary
from sqlalchemy.types import TypeDecorator

_DEFLATE = 0x78  # the first byte of every packed document; that of JSON is none
_ID = slice(2, 6)  # where a header that asks for a dictionary has the dictionary's checksum
_CURRENT = (Path(__file__).parent / "dictionary_1.txt").read_bytes()
DICTIONARIES = {zlib.adler32(it).to_bytes(4, "big"): it for it in (_CURRENT,)}


def pack(document: str) -> bytes:
    """A document as it is kept."""
    packer = zlib.compressobj(zdict=_CURRENT)
    return packer.compress(document.encode()) + packer.flush()


def unpack(kept: bytes | str) -> str:
    """The document again."""
    if isinstance(kept, str):
        return kept
    if kept[:1] != bytes([_DEFLATE]):
        return bytes(kept).decode()
    kept = bytes(kept)
    return zlib.decompressobj(zdict=DICTIONARIES[kept[_ID]]).decompress(kept).decode()


class Packed(TypeDecorator[str]):
    """A column of packed documents, which are text to who reads them."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> bytes | None:
        return None if value is None else pack(value)

    def result_processor(self, dialect: Dialect, coltype: Any) -> Any:
        """Of the column's own, which would not take what was kept as text."""
        return lambda kept: None if kept is None else unpack(kept)
