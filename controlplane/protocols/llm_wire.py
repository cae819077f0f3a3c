"""The way of a provider's SDK to its endpoint: addresses checked, secret added, answers bounded and judged.

An SDK sees answers of success only: whole ones, or where it streams, what comes until it breaks. Every other
end is kept as `failure`, told apart by what is known: nothing was sent (`Unreached`), nothing was taken (`Busy`),
refused, or broken off (`Doubt`).
"""

import logging
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from email.utils import parsedate_to_datetime

import httpx
import httpx2
import orjson

from controlplane import VERSION
from controlplane.protocols.http_client import NOTHING_SENT, OWN, Checked, body_of, origin_of
from controlplane.protocols.scrubbing import shortened
from controlplane.resources.problems import refuse
from schemas.llm import Usage
from schemas.ports import Doubt, Link, Unreached
from schemas.problem import Refusal

NOTHING_TAKEN = frozenset({429, 503, 529})
SAID_CHARS_MAX = 500
_TOKENS_IN = ("prompt_tokens", "input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
_TOKENS_OUT = ("completion_tokens", "output_tokens")
_NOT_THE_SDK_S = ("authorization", "x-api-key", "accept-encoding", "user-agent", "host")
for _name in ("httpx2", "openai", "anthropic"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class Busy(Exception):  # noqa: N818 - a state of the far side
    """The endpoint took nothing, and may say after how many seconds it will."""

    def __init__(self, status: int, said: str, after_s: float) -> None:
        super().__init__(said)
        self.status, self.said, self.after_s = status, said, after_s


class Wire(httpx2.AsyncBaseTransport):
    """Carries an SDK's requests over a connection; `failure` is what the last one came to, unless it was answered."""

    def __init__(self, link: Link, own: dict[str, str], *, streams: bool = False) -> None:
        self._streams = streams
        self._link = link
        self._own = own
        self._checked = Checked(link)
        self.failure: Exception | None = None
        self.body = b""  # of the last answer that came whole

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.failure, self.body = None, b""
        try:
            if self._streams:
                return await self._streaming(request)
            status, body = await self._exchange(request)
        except (Refusal, Unreached, Doubt, Busy) as error:
            self.failure = error
            raise
        self.body = body
        return httpx2.Response(status, headers={"content-type": "application/json"}, content=body, request=request)

    async def _exchange(self, request: httpx2.Request) -> tuple[int, bytes]:
        name, most = self._link.name, self._link.spec.limits.response_bytes_max
        try:
            response = await self._checked.handle_async_request(await self._outgoing(request))
            try:
                body, truncated = await body_of(response, most)
            finally:
                await response.aclose()
        except NOTHING_SENT as error:
            raise Unreached(f"could not reach {name}: {error}") from error
        except httpx.TransportError as error:
            raise Doubt(f"was cut off: {type(error).__name__}: {error}") from error
        if not response.is_success:
            raise self._refused(response, body)
        if truncated:
            raise self._too_much()
        return response.status_code, body

    async def _streaming(self, request: httpx2.Request) -> httpx2.Response:
        """An answer that has begun; what breaks it later is kept by `_Coming`."""
        name, most = self._link.name, self._link.spec.limits.response_bytes_max
        try:
            response = await self._checked.handle_async_request(await self._outgoing(request))
            if not response.is_success:
                try:
                    body, _ = await body_of(response, most)
                finally:
                    await response.aclose()
                raise self._refused(response, body)
        except NOTHING_SENT as error:
            raise Unreached(f"could not reach {name}: {error}") from error
        except httpx.TransportError as error:
            raise Doubt(f"was cut off: {type(error).__name__}: {error}") from error
        kind = {"content-type": response.headers.get("content-type", "text/event-stream")}
        coming = _Coming(self, response, most)
        return httpx2.Response(response.status_code, headers=kind, stream=coming, request=request)

    def _too_much(self) -> Exception:
        name, most = self._link.name, self._link.spec.limits.response_bytes_max
        return refuse(
            "EFFECT_FAILED", f"{name} answered more than {most} bytes", connection=name, response_bytes_max=most
        )

    def broke(self, error: httpx.TransportError | None) -> Exception:
        """What a stream came to that broke off, or had too much to say."""
        self.failure = self._too_much()
        if error is not None:
            self.failure = Doubt(f"was cut off: {type(error).__name__}: {error}")
        return self.failure

    async def _outgoing(self, request: httpx2.Request) -> httpx.Request:
        headers = [(key, value) for key, value in request.headers.multi_items() if key.lower() not in _NOT_THE_SDK_S]
        own = {"Accept-Encoding": "identity", "User-Agent": f"steward/{VERSION}"}
        return httpx.Request(
            request.method,
            str(request.url),
            headers=[*headers, *own.items()],
            content=await request.aread(),
            extensions={OWN: (origin_of(httpx.URL(str(request.url))), self._own)},
        )

    def _refused(self, response: httpx.Response, body: bytes) -> Exception:
        name, status = self._link.name, response.status_code
        said = shortened(body.decode(errors="replace"), SAID_CHARS_MAX, self._link.secret)
        if status in NOTHING_TAKEN:
            return Busy(status, said, retry_after_s(response.headers.get("retry-after", ""), time.time()))
        detail = f"{name} answered {status}: {said}"
        return refuse("EFFECT_FAILED", detail, connection=name, http_status=status, said=said)


class _Coming(httpx2.AsyncByteStream):
    """A body while it comes, bounded like any other."""

    def __init__(self, wire: Wire, response: httpx.Response, most: int) -> None:
        self._wire, self._response, self._most = wire, response, most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        try:
            async for chunk in self._response.aiter_raw():
                size += len(chunk)
                if size > self._most:
                    raise self._wire.broke(None)
                yield chunk
        except httpx.TransportError as error:
            raise self._wire.broke(error) from error

    async def aclose(self) -> None:
        await self._response.aclose()


def said_usage(body: bytes) -> Usage | None:
    """What an answer says that it took, in the words of either API, though it can not be read as one."""
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        said = orjson.loads(body)["usage"]
        counted = [sum(int(said.get(it) or 0) for it in names) for names in (_TOKENS_IN, _TOKENS_OUT)]
        return Usage(tokens_in=max(0, counted[0]), tokens_out=max(0, counted[1]))
    return None


def retry_after_s(text: str, now: float) -> float:
    """The seconds of a Retry-After header, given as such or as a date; 0 when it says nothing."""
    with suppress(ValueError):
        return min(max(0.0, float(text)), 86_400.0)
    with suppress(ValueError, TypeError):
        return min(max(0.0, parsedate_to_datetime(text).timestamp() - now), 86_400.0)
    return 0.0
