"""A wait lasts only while somebody waits for it.

Operations that may wait long are watched for their client's going; others are not, because a watch
costs more than they do.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

from controlplane.resources.catalogue import OPERATIONS

T = TypeVar("T")
WAITING = frozenset(
    operation.name
    for operation in OPERATIONS.values()
    if operation.effect == "read" and {"wait_s", "timeout_s"} & set(operation.input.model_fields)
)


class ClientGoneError(Exception):
    """The client went away: there is nobody to answer."""


async def until_gone(receive: Receive) -> None:
    """Return when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def while_there(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """What the work comes to; ends it and raises ClientGoneError when its client goes before."""
    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(until_gone(receive))
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGoneError
        return working.result()
    finally:
        working.cancel()
        gone.cancel()
