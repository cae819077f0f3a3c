"""A port of this machine that nobody listens at."""

import socket


def free_port() -> int:
    """One that was free a moment ago, on loopback."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
