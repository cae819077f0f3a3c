"""Where a trace begins: the trace context of the W3C for what nothing else caused."""

import secrets


def new_trace() -> str:
    """A new trace context, sampled."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
