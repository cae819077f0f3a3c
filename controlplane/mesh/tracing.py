"""Where a trace begins, and where one that came along goes on: the trace context of the W3C.

What a request says of its trace stands beside the request, and not in its input: it is no part of what is asked for.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_COMING: ContextVar[str | None] = ContextVar("traceparent", default=None)


def new_trace() -> str:
    """A new trace context, sampled."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def coming_trace() -> str | None:
    """The trace context that the request which is worked on brought along, if any."""
    return _COMING.get()


@contextmanager
def tracing(traceparent: str | None) -> Iterator[None]:
    """All that is called inside is part of this trace; None where each begins its own."""
    token = _COMING.set(traceparent)
    try:
        yield
    finally:
        _COMING.reset(token)
