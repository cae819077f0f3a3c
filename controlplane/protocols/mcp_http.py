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
from controlplane.protocols.addresses import Asker, checked
from schemas.problem import Refusal

ENCODED = ("content-encoding",)  # it is read as it comes, and then is no JSON
NOT_SENT = 599  # stands for an answer where there was none
OK = 200
ERRORS_FROM = 400
SENT_ON = (307, 308)  # the same request, to be made elsewhere
ANSWERS = ("application/json", "text/event-stream")
FLIGHT: ContextVar["Flight | None"] = ContextVar("flight", default=None)


@dataclass
class Flight:
    """What became of the requests of one call: whether any was sent, the last status, and what broke.

    `status` is of what was posted: a stream that is taken up again (GET) says nothing of whether the call was done.
    Once it was `taken`, nothing that comes later says that it was not; `odd` is an answer that is none.
    """

    sent: bool = False
    status: int = 0
    taken: bool = False
    odd: bool = False
    refusal: Refusal | None = None
    broke: str = ""


class Checked(httpx2.AsyncBaseTransport):
    """Connects to checked addresses only, adds the connection's own headers, and bounds what is answered."""

    def __init__(
        self,
        name: str,
        namespace: str,
        headers: dict[str, str],
        *,
        allow_private: bool,
        connect_s: float,
        bytes_max: int,
    ) -> None:
        self._asker = Asker(name, namespace, allow_private, connect_s)
        self._headers = headers
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
            if request.method == "POST":
                _note(flight, response)
            return response
        return httpx2.Response(NOT_SENT, request=request)

    async def _sent(self, request: httpx2.Request, flight: Flight) -> httpx2.Response:
        url = request.url
        port = url.port or (443 if url.scheme == "https" else 80)
        addresses = await checked(url.host, port, self._asker)
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
            body = response.stream
            assert isinstance(body, httpx2.AsyncByteStream)
            return httpx2.Response(
                response.status_code,
                headers=[(name, value) for name, value in response.headers.multi_items() if name not in ENCODED],
                stream=await self._bounded(request, response, body),
                extensions=response.extensions,
                request=request,
            )
        raise found

    async def _bounded(
        self, request: httpx2.Request, response: httpx2.Response, body: httpx2.AsyncByteStream
    ) -> httpx2.AsyncByteStream:
        """The body as it may be read: of a redirect, which the client reads whole, nothing; of events, each."""
        if 300 <= response.status_code < ERRORS_FROM:
            await body.aclose()
            return httpx2.ByteStream(b"")
        events = _kind(response).startswith("text/event-stream")
        each = events and response.status_code == OK and request.method != "DELETE"
        return _Bounded(body, None if each else self._bytes_max)


def _kind(response: httpx2.Response) -> str:
    return str(response.headers.get("content-type", "")).lower()


def _note(flight: Flight, response: httpx2.Response) -> None:
    """What an answer to what was posted says of it."""
    status = flight.status = response.status_code
    if status < ERRORS_FROM and status not in SENT_ON:
        flight.taken = True
        flight.odd = status != OK or not _kind(response).startswith(ANSWERS)


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
