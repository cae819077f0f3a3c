"""Streamable HTTP as the MCP client sends it: to addresses that may be reached, with answers that are bounded.

The client of `mcp` follows redirects within the endpoint's own origin only; here each request's name is resolved,
checked, and connected to by the checked address, as for `http.request`. Each request has a connection of its own.
What can not be sent is told by a `Flight`, which travels with the call, and not by an exception, which would end
the session of all others.
"""

from collections.abc import AsyncIterator
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache

import httpx2

from controlplane import VERSION
from controlplane.protocols.addresses import checked
from schemas.problem import Refusal

ENCODED = ("content-encoding",)  # it is read as it comes, and then is no JSON
NOT_SENT = 599  # stands for an answer where there was none
FLIGHT: ContextVar["Flight | None"] = ContextVar("flight", default=None)


@dataclass
class Flight:
    """What became of the requests of one call: whether any was sent, the last status, and what broke."""

    sent: bool = False
    status: int = 0
    refusal: Refusal | None = None
    broke: str = ""


class Checked(httpx2.AsyncBaseTransport):
    """Connects to checked addresses only, adds the connection's own headers, and bounds what is answered."""

    def __init__(
        self, name: str, headers: dict[str, str], *, allow_private: bool, connect_s: float, bytes_max: int
    ) -> None:
        self._name = name
        self._headers = headers
        self._allow_private = allow_private
        self._connect_s = connect_s
        self._bytes_max = bytes_max

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        flight = FLIGHT.get() or Flight()
        try:
            response = await self._sent(request, flight)
        except Refusal as refusal:
            flight.refusal = refusal
        except (OSError, httpx2.TransportError) as error:
            flight.broke = f"{type(error).__name__}: {error}"
        else:
            flight.status = response.status_code
            return response
        return httpx2.Response(NOT_SENT, request=request)

    async def _sent(self, request: httpx2.Request, flight: Flight) -> httpx2.Response:
        url = request.url
        port = url.port or (443 if url.scheme == "https" else 80)
        addresses = await checked(url.host, port, self._name, allow_private=self._allow_private)
        headers = httpx2.Headers(request.headers)
        headers.update(self._headers)
        headers["User-Agent"] = f"steward/{VERSION}"
        headers["Accept-Encoding"] = "identity"  # what is packed has no bound
        connect = {"connect": self._connect_s / (1 + len(addresses))}
        extensions = {**request.extensions, "sni_hostname": url.host, "timeout": connect}
        found: Exception = OSError(f"the name {url.host} has no address")
        for address in addresses:
            pinned = httpx2.Request(
                request.method,
                url.copy_with(host=address),
                headers=headers,
                stream=request.stream,
                extensions=extensions,
            )
            try:
                response = await _inner().handle_async_request(pinned)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                found = error
                continue
            except httpx2.TransportError:
                flight.sent = True
                raise
            flight.sent = True
            events = response.headers.get("content-type", "").lower().startswith("text/event-stream")
            body = response.stream
            assert isinstance(body, httpx2.AsyncByteStream)
            return httpx2.Response(
                response.status_code,
                headers=[(name, value) for name, value in response.headers.multi_items() if name not in ENCODED],
                stream=_Bounded(body, None if events else self._bytes_max),
                extensions=response.extensions,
                request=request,
            )
        raise found


class _Bounded(httpx2.AsyncByteStream):
    """A body of so many bytes at most; events are bounded each, by who reads them. What breaks is told as one kind."""

    def __init__(self, inner: httpx2.AsyncByteStream, bytes_max: int | None) -> None:
        self._inner = inner
        self._left = bytes_max

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._inner:
                if self._left is not None:
                    self._left -= len(chunk)
                    if self._left < 0:
                        raise httpx2.StreamError("the answer is larger than response_bytes_max")
                yield chunk
        except httpx2.TransportError as error:
            raise httpx2.StreamError(f"{type(error).__name__}: {error}") from error

    async def aclose(self) -> None:
        await self._inner.aclose()


@cache
def _inner() -> httpx2.AsyncHTTPTransport:
    """The sockets; no connection is kept."""
    return httpx2.AsyncHTTPTransport(
        trust_env=True, limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0)
    )
