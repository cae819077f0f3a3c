"""Envelopes and what stands for them outside: the HTTP binding of CloudEvents 1.0, in all of its modes, and the
trace context of the W3C. Pure.

In binary mode the attributes are headers (`ce-…`, percent-encoded) and the body is the data; in structured mode the
body is the whole event (`application/cloudevents+json`), in batched mode a list of such
(`application/cloudevents-batch+json`). What is neither is an event all the same: its data is the
body. Nothing that comes from outside says who it is from, what it is because of, or how far it is trusted: of its
attributes the type, the key and the trace context are taken, and what it calls itself is kept as `origin`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

import orjson

from controlplane.resources.problems import refuse
from schemas.problem import Refusal

STRUCTURED = "application/cloudevents+json"
BATCHED = "application/cloudevents-batch+json"
BATCH_MAX = 100
JSON = "application/json"
NOTHING = f"00-{32 * '0'}-"
TEXT_CHARS_MAX = 200
_TRACE = re.compile(r"00-[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_REQUIRED = ("specversion", "id", "source", "type")
_AS_IT_IS = "!#$&'()*+,-./:;<=>?@[]^_`{|}~"  # what a header's value holds unencoded, less `"` and `%`


@dataclass(frozen=True)
class Arrived:
    """What came: its data, and what of its attributes is taken."""

    data: Any
    type: str | None = None
    origin: str | None = None
    partitionkey: str | None = None
    traceparent: str | None = None


def trace_of(given: object) -> str | None:
    """A `traceparent` that is one; None for anything else."""
    return given if isinstance(given, str) and _TRACE.fullmatch(given) and not given.startswith(NOTHING) else None


def from_http(headers: Mapping[str, str], body: bytes, parse: Callable[[bytes], Any]) -> Arrived:
    """A request as an event; header names are lower-case. Raises UNSUPPORTED_MEDIA_TYPE, INVALID_VALUE, or what
    `parse` raises."""
    media = _media(headers)
    traceparent = trace_of(headers.get("traceparent"))
    if media == STRUCTURED:
        return _structured(parse(body), traceparent)
    if media not in (JSON, "") or (body and not media):
        raise refuse(
            "UNSUPPORTED_MEDIA_TYPE",
            f"send {JSON}, {STRUCTURED} or {BATCHED}, not {media[:TEXT_CHARS_MAX] or 'none'}",
            content_type=media[:TEXT_CHARS_MAX] or None,
        )
    data = parse(body) if body else None
    given = {name[3:]: unquote(value) for name, value in headers.items() if name.startswith("ce-")}
    return _arrived(given, data, traceparent) if "specversion" in given else Arrived(data, traceparent=traceparent)


def is_batch(headers: Mapping[str, str]) -> bool:
    """Whether a request holds several events."""
    return _media(headers) == BATCHED


def from_batch(headers: Mapping[str, str], body: bytes, parse: Callable[[bytes], Any]) -> list[tuple[str, Arrived]]:
    """The events of a request in batched mode, each with what it is known by: its source and id.

    Raises INVALID_VALUE or OUT_OF_RANGE, with a pointer into the batch, or what `parse` raises.
    """
    events = parse(body)
    if not isinstance(events, list):
        raise refuse("INVALID_VALUE", "a batch of CloudEvents is a JSON array", field="")
    if len(events) > BATCH_MAX:
        detail = f"a batch has {BATCH_MAX} events at most, and this one has {len(events)}"
        raise refuse("OUT_OF_RANGE", detail, field="", max=BATCH_MAX, events=len(events))
    traceparent = trace_of(headers.get("traceparent"))
    found = []
    for number, event in enumerate(events):
        try:
            arrived = _structured(event, traceparent)
        except Refusal as refusal:
            at = f"/{number}{refusal.problem.field or ''}"
            raise Refusal(refusal.problem.model_copy(update={"field": at})) from None
        found.append((orjson.dumps([event["source"], event["id"]]).decode(), arrived))
    return found


def _structured(event: Any, traceparent: str | None) -> Arrived:
    if not isinstance(event, dict):
        raise refuse("INVALID_VALUE", "a structured CloudEvent is a JSON object", field="")
    if "data_base64" in event:
        raise refuse("INVALID_VALUE", "data must be JSON; data_base64 is not taken", field="/data_base64")
    return _arrived(event, event.get("data"), traceparent)


def _media(headers: Mapping[str, str]) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def _arrived(event: Mapping[str, Any], data: Any, traceparent: str | None) -> Arrived:
    for name in (*_REQUIRED, "partitionkey", "traceparent"):
        value = event.get(name)
        wanted = name in _REQUIRED
        if (not value and wanted) or not isinstance(value, str | None) or len(value or "x") > TEXT_CHARS_MAX:
            detail = f"attribute {name} of a CloudEvent is text of 1 to {TEXT_CHARS_MAX} characters"
            raise refuse("INVALID_VALUE", detail, field=f"/{name}", attribute=name, chars_max=TEXT_CHARS_MAX)
    if event["specversion"] != "1.0":
        raise refuse("INVALID_VALUE", "a CloudEvent has specversion 1.0", field="/specversion")
    own = event["type"].startswith("steward.")  # what we say ourselves, nobody says from outside
    return Arrived(
        data,
        None if own else event["type"],
        f"{event['source']}#{event['id']}",
        event.get("partitionkey") or None,
        traceparent or trace_of(event.get("traceparent")),
    )


def to_http(event: Mapping[str, Any], mode: str) -> tuple[dict[str, str], bytes]:
    """An envelope as the headers and the body of a request: `mode` is `structured` or `binary`.

    Attributes that are null are left out, as CloudEvents asks; in binary mode, so is what is no scalar.
    """
    given = {name: value for name, value in event.items() if value is not None}
    if mode == "structured":
        return {"Content-Type": STRUCTURED}, orjson.dumps(given)
    data = given.pop("data", None)
    kind = given.pop("datacontenttype", JSON)
    headers = {f"ce-{name}": _header(value) for name, value in given.items() if isinstance(value, str | int | bool)}
    return {**headers, "Content-Type": _header(kind)}, b"" if data is None else orjson.dumps(data)


def _header(value: str | int | bool) -> str:
    """A value as section 3.1.3.2 of the binding encodes it: what is no printable ASCII, `"` and `%` in percent."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return quote(str(value), safe=_AS_IT_IS)
