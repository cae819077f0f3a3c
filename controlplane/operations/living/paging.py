"""Opaque page marks: the key of the last row shown, as URL-safe text.

A mark that is not one of ours is INVALID_CURSOR at `/page`, whatever is wrong with it.
"""

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import orjson

from controlplane.resources.problems import refuse
from schemas.base import INT64_MAX


def encode(key: Sequence[str | int | float]) -> str:
    """The mark of a key."""
    return base64.urlsafe_b64encode(orjson.dumps(list(key))).decode().rstrip("=")


def decode(page: str, types: tuple[type, ...]) -> list[Any]:
    """The key of a mark, whose parts must be of these types."""
    try:
        key = orjson.loads(base64.urlsafe_b64decode(page.encode("ascii") + b"=" * (-len(page) % 4)))
    except (binascii.Error, UnicodeEncodeError, orjson.JSONDecodeError):
        key = None
    if not isinstance(key, list) or [type(part) for part in key] != list(types) or not all(map(_storable, key)):
        raise refuse("INVALID_CURSOR", "the page is not one that this list answered", field="/page", page=page)
    return key


def _storable(part: str | float) -> bool:
    """Whether both databases can be asked for it: no integer beyond 64 bits, no NUL in text."""
    return "\x00" not in part if isinstance(part, str) else isinstance(part, float) or abs(part) <= INT64_MAX


def position(cursor: str, newest: int, field: str = "/after") -> int:
    """The position that a channel's cursor names, from 0 to the newest there is."""
    if not (cursor.isascii() and cursor.isdigit()) or len(cursor) > len(str(INT64_MAX)) or int(cursor) > newest:
        raise refuse("INVALID_CURSOR", "the cursor is not one that this channel answered", field=field, after=cursor)
    return int(cursor)
