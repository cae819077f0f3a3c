"""Whom clients trust is read once a process: it takes 50 ms of every client's making, and a run makes thousands.

Only the usual list is kept; a context for certificates of a test's own is made as ever.
"""

import os
import ssl
from functools import cache
from typing import Any

import certifi
import httpcore2

USUAL = (certifi.where(), os.environ.get("SSL_CERT_FILE"))
_made = ssl.create_default_context


@cache
def _usual(cafile: str) -> ssl.SSLContext:
    return _made(cafile=cafile)


def _context(*given: Any, **more: Any) -> ssl.SSLContext:
    if not given and more.keys() == {"cafile"} and more["cafile"] in USUAL:
        return _usual(more["cafile"])
    return _made(*given, **more)


def keep() -> None:
    """From now on, in this process."""
    ssl.create_default_context = _context
    httpcore2.default_ssl_context = cache(httpcore2.default_ssl_context)  # httpx2 asks here
