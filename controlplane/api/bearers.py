"""The token of a request: in one header, or among the subprotocols of a WebSocket, for browsers.

A page can not set the header of an upgrade, and no token belongs into a URL, which is logged and shared. So it may
stand as a subprotocol beside ours, as base64url without padding; the answer names ours alone, and nothing behind this
sees the token.
"""

import base64
import binascii

from starlette.types import Scope

from controlplane.resources.problems import refuse

TOKEN_CHARS_MAX = 512
STREAM_PROTOCOL = "steward.stream.v1"
BEARER_PROTOCOL = "base64url.bearer.steward."  # and the token
_OFFERED = b"sec-websocket-protocol"


def bearer(scope: Scope) -> str:
    """The token of the request; raises UNAUTHENTICATED."""
    given = [value for key, value in scope["headers"] if key == b"authorization"]
    scheme, _, token = given[0].decode("latin-1").partition(" ") if len(given) == 1 else ("", "", "")
    token = token.strip()
    if scheme.lower() != "bearer" or not _is_token(token):
        raise refuse("UNAUTHENTICATED", "send one header Authorization: Bearer TOKEN")
    return token


def socket_bearer(scope: Scope) -> str:
    """The token of an upgrade, by its header or by its subprotocols, not by both; raises UNAUTHENTICATED."""
    offered: list[str] = scope.get("subprotocols", [])
    given = [it.removeprefix(BEARER_PROTOCOL) for it in offered if it.startswith(BEARER_PROTOCOL)]
    scope["subprotocols"] = [it for it in offered if not it.startswith(BEARER_PROTOCOL)]
    scope["headers"] = [(key, value) for key, value in scope["headers"] if key != _OFFERED]
    if not given:
        return bearer(scope)
    token = _decoded(given[0])
    named = any(key == b"authorization" for key, _ in scope["headers"])
    if named or len(given) > 1 or STREAM_PROTOCOL not in offered or not _is_token(token):
        detail = (
            f"offer the subprotocols {STREAM_PROTOCOL} and {BEARER_PROTOCOL}TOKEN, the token as base64url without "
            "padding, and no header Authorization beside them"
        )
        raise refuse("UNAUTHENTICATED", detail)
    return token


def _is_token(text: str) -> bool:
    return bool(text) and len(text) <= TOKEN_CHARS_MAX and text.isascii()


def _decoded(text: str) -> str:
    """What the text encodes; nothing where it does not."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return ""
