"""Telling who waits for a call that it goes on.

A caller that gives a progress token, or asks for log messages, is answered by a stream, so that there
is something to tell it by; everybody else gets one JSON answer, which costs less. A call with a token
is told of every few seconds, so that a client whose patience ends before a wait does knows better.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import mcp_types as types

from mcp_server.callers import Context

T = TypeVar("T")
TOLD_EVERY_S = 5.0


def asks_to_be_told(message: Any) -> bool:
    """Whether a message of JSON-RPC asks for notifications while it is worked on."""
    params = message.get("params") if isinstance(message, dict) else None
    meta = params.get("_meta") if isinstance(params, dict) else None
    return isinstance(meta, dict) and ("progressToken" in meta or types.LOG_LEVEL_META_KEY in meta)


async def telling(context: Context, work: Coroutine[Any, Any, T]) -> T:
    """What the work comes to; until then its caller is told now and then, if it asked for that."""
    if "progress_token" not in (context.meta or {}):
        return await work
    told = asyncio.ensure_future(_tell(context))
    try:
        return await work
    finally:
        told.cancel()
        await asyncio.gather(told, return_exceptions=True)


async def _tell(context: Context) -> None:
    seconds = 0.0
    while True:
        await asyncio.sleep(TOLD_EVERY_S)
        seconds += TOLD_EVERY_S
        await context.session.report_progress(seconds, None, f"working on it for {seconds:g} s")
