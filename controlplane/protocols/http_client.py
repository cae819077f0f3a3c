"""Sending HTTP requests with httpx: to addresses that may be reached, with answers that are bounded.

A name is resolved here and every address of it checked, then one of them is connected to, so that no
second answer of the resolver leads elsewhere; each redirect passes the same check. Secret and key go to
the endpoint's own origin only. Each request has a connection of its own: a kept one that the far side
had closed could not be told from a request that was cut off. What failed before anything was sent is
`Unreached`; what broke off later is `Doubt`.
"""

import base64
import contextlib
import logging
from functools import cache
from typing import Any

import httpx
import orjson

from controlplane import VERSION
from controlplane.protocols.addresses import Asker, checked
from controlplane.protocols.envelopes import to_http
from controlplane.resources.problems import refuse
from schemas.http import HEADER_CHARS_MAX, HEADERS_MAX, HttpRequest, MadeRequest
from schemas.ports import Doubt, Link, Unreached

ANSWER_BYTES_MAX = 2_000_000  # as JSON, so that it fits into a receipt
EFFECT = "http.request"
OWN = "steward.own"
logging.getLogger("httpx").setLevel(logging.WARNING)  # URLs of agents' requests are no matter of the log
NOTHING_SENT = (
    httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol, httpx.LocalProtocolError,
)  # fmt: skip


async def answer(asked: HttpRequest, link: Link, headers: dict[str, str], own: dict[str, str]) -> dict[str, Any]:
    """What the far side answers, as JSON."""
    options, most = link.spec.options, link.spec.limits.response_bytes_max
    url = _url(link.spec.endpoint, asked.path)
    follow = options.redirects_max > 0 and asked.method in ("GET", "HEAD")
    checked = Checked(link, follows=follow)
    client = httpx.AsyncClient(
        transport=checked,
        timeout=None,  # noqa: S113 - the gate's own; connecting has its part of it
        max_redirects=options.redirects_max,
        trust_env=False,
        headers={"User-Agent": f"steward/{VERSION}"},
    )
    request = _request(client, asked, url, headers, own)
    try:
        response = await client.send(request, stream=True, follow_redirects=follow)
        try:
            body, truncated = await body_of(response, most)
        finally:
            await response.aclose()
    except NOTHING_SENT as error:
        if checked.answered:  # a redirect was: it is not asked for once more
            detail = f"{link.name} redirects to where nothing could be sent: {error}"
            raise refuse("EFFECT_FAILED", detail, effect=EFFECT, connection=link.name) from error
        raise Unreached(f"could not reach {link.name}: {error}") from error
    except httpx.TooManyRedirects as error:
        detail = f"{link.name} redirects more than {options.redirects_max} times"
        raise refuse("EFFECT_FAILED", detail, effect=EFFECT, connection=link.name) from error
    except httpx.TransportError as error:
        raise Doubt(f"was cut off: {type(error).__name__}: {error}") from error
    return _answer(response, body, truncated=truncated, secret=link.secret)


def _request(
    client: httpx.AsyncClient, asked: HttpRequest, url: str, headers: dict[str, str], own: dict[str, str]
) -> httpx.Request:
    """The request, made before anything is sent: what can not be made was certainly not."""
    try:
        return client.build_request(
            asked.method,
            url,
            params=asked.query or None,
            headers=headers,
            json=asked.body if "body" in asked.model_fields_set else None,
            content=_content(asked),
            extensions={OWN: (origin_of(httpx.URL(url)), own)},
        )
    except (httpx.InvalidURL, ValueError, TypeError) as error:
        detail = f"no request can be made of this: {type(error).__name__}: {error}"
        raise refuse("INVALID_VALUE", detail, field="/arguments", error=str(error)) from error


def _url(endpoint: str, path: str) -> str:
    return f"{endpoint.rstrip('/')}/{path.lstrip('/')}" if path else endpoint


def _content(asked: HttpRequest) -> bytes | None:
    if asked.event is not None:
        return to_http(asked.event.model_dump(mode="json"), asked.event_mode)[1]
    if "body" in asked.model_fields_set:
        return None
    if isinstance(asked, MadeRequest) and asked.content is not None:
        return asked.content
    return asked.text.encode() if asked.text is not None else None


def origin_of(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


async def body_of(response: httpx.Response, most: int) -> tuple[bytes, bool]:
    """The beginning of the body, and whether there is more; as it came, whatever its encoding."""
    found = bytearray()
    async for chunk in response.aiter_raw():
        found += chunk
        if len(found) > most:
            return bytes(found[:most]), True
    return bytes(found), False


def _answer(response: httpx.Response, body: bytes, *, truncated: bool, secret: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "status": response.status_code,
        "headers": _headers(response),
        "json": None,
        "text": None,
        "base64": None,
        "truncated": truncated,
    }
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    encoded = response.headers.get("content-encoding", "identity").lower() != "identity"
    try:
        if encoded:
            raise UnicodeDecodeError("utf-8", body, 0, 1, "it is encoded")
        found["text"] = body.decode(errors="strict" if not truncated else "ignore")
    except UnicodeDecodeError:
        found["base64"] = base64.b64encode(body.replace(secret.encode(), b"[secret]") if secret else body).decode()
    if found["text"] is not None and not truncated and (kind == "application/json" or kind.endswith("+json")):
        # It may say that it is JSON and be none, or be nested deeper than it can be kept: then it is text.
        with contextlib.suppress(orjson.JSONDecodeError, orjson.JSONEncodeError):
            value = orjson.loads(body)
            orjson.dumps(value)
            found["json"], found["text"] = value, None
    if len(orjson.dumps(found)) > ANSWER_BYTES_MAX:  # escapes can make more of a body than it was
        found |= {"json": None, "text": None, "base64": None, "truncated": True}
    return found


def _headers(response: httpx.Response) -> dict[str, str]:
    """The first headers, as many as may be kept."""
    kept: dict[str, str] = {}
    room = HEADER_CHARS_MAX
    for name, value in response.headers.items():
        room -= len(name) + len(value)
        if room < 0 or len(kept) >= HEADERS_MAX:
            break
        kept[name] = value
    return kept


class Checked(httpx.AsyncBaseTransport):
    """Connects to checked addresses only, and adds what only the endpoint's own origin may see."""

    def __init__(self, link: Link, *, follows: bool = False) -> None:
        self._timeout_s = link.spec.limits.timeout_s
        self._asker = Asker(link.name, link.namespace, link.spec.options.allow_private, self._timeout_s)
        self._follows = follows
        self.answered = False  # whether any request was, a redirected one too

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        origin, own = request.extensions[OWN]
        headers = httpx.Headers(request.headers)
        if origin_of(request.url) == origin:
            headers.update(own)
        addresses = await self._addresses(request.url)
        # Not reached is known before the gate's patience ends, which could not tell it from not answered.
        connect = {"connect": self._timeout_s / (1 + len(addresses))}
        extensions = {**request.extensions, "sni_hostname": request.url.host, "timeout": connect}
        found: httpx.TransportError = httpx.ConnectError("the name has no address")
        for address in addresses:
            pinned = httpx.Request(
                request.method,
                request.url.copy_with(host=address),
                headers=headers,
                stream=request.stream,
                extensions=extensions,
            )
            try:
                response = await _inner().handle_async_request(pinned)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                found = error
                continue
            self.answered = True
            if self._follows and response.has_redirect_location:  # the client would read it whole
                return await _without_body(response)
            return response
        raise found

    async def _addresses(self, url: httpx.URL) -> list[str]:
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            return await checked(url.host, port, self._asker)
        except OSError as error:
            raise httpx.ConnectError(f"the name {url.host} has no address: {error}") from error


async def _without_body(response: httpx.Response) -> httpx.Response:
    """A redirect that is followed: nothing of its body is read, which may have no end."""
    await response.aclose()
    headers = [it for it in response.headers.multi_items() if it[0] != "content-encoding"]
    return httpx.Response(response.status_code, headers=headers, stream=httpx.ByteStream(b""))


@cache
def _inner() -> httpx.AsyncHTTPTransport:
    """The sockets; no connection is kept."""
    return httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=None, max_keepalive_connections=0))
