"""The envelope of an operator's message: a CloudEvent, made of nothing but its arguments.

Data must be JSON that everybody inside can hold: no number beyond 64 bits, no lone surrogate, no
endless nesting, not too large. With a request id the message id is a hash, so that the same call
makes the same message again, and the inbox takes it once.
"""

from datetime import UTC, datetime
from typing import Any

import orjson

from controlplane.mesh.tracing import new_trace
from controlplane.resources.problems import refuse
from schemas.base import fresh_id, rfc3339, short_id
from schemas.calls import DATA_BYTES_MAX
from schemas.posting import Placed, Posted, Urgency, placed
from schemas.principal import Call, Principal

TYPE = "steward.message"


def encode(data: Any, field: str = "/data") -> bytes:
    """The data as JSON, or the refusal that points at it."""
    try:
        encoded = orjson.dumps(data)
    except TypeError as error:
        detail = f"the data can not be carried as JSON: {error}"
        raise refuse("INVALID_VALUE", detail, field=field, error=str(error)) from None
    if len(encoded) > DATA_BYTES_MAX:
        detail = f"the data has {len(encoded)} bytes, {DATA_BYTES_MAX} at most"
        raise refuse("TOO_LARGE", detail, field=field, bytes=len(encoded), bytes_max=DATA_BYTES_MAX)
    return encoded


def message_id(call: Call, namespace: str, name: str) -> str:
    """The same for the same request id, else new."""
    if call.request_id is None:
        return fresh_id("msg", call.now)
    said = (call.principal.identity, call.operation, namespace, name, call.request_id)
    return short_id("msg", *said, near=call.request_id)


def source(principal: Principal) -> str:
    """Who sends: an agent by its own address, anybody else as an operator."""
    if principal.role == "agent" and principal.agent is not None:
        return f"/{principal.namespaces[0]}/agents/{principal.agent}"
    return f"/operators/{principal.name}"


def envelope(call: Call, identifier: str, subject: str, data: bytes, **extensions: str | int | None) -> bytes:
    """The CloudEvent as JSON, part of the call's trace or the first of a new one; `data` is JSON already."""
    attributes: dict[str, Any] = {
        "specversion": "1.0",
        "id": identifier,
        "source": source(call.principal),
        "type": TYPE,
        "subject": subject,
        "time": at(call.now),
        "datacontenttype": "application/json",
        "traceparent": call.traceparent or new_trace(),
        "onbehalfof": call.principal.name,
        **{name: value for name, value in extensions.items() if value is not None},
        "data": orjson.Fragment(data),
    }
    return orjson.dumps(attributes)


def placing(call: Call, given: Urgency) -> Placed:
    """How a message goes, in moments."""
    key, delay_s = (given.key, given.delay_s) if isinstance(given, Posted) else (None, 0.0)
    return placed(key, given.priority, delay_s, given.ttl_s, call.now)


def said(how: Placed) -> dict[str, str | int | None]:
    """What the envelope says of that."""
    expires = at(how.expires_at) if how.expires_at else None
    return {"partitionkey": how.key, "priority": how.priority or None, "expires": expires}


def at(seconds: float) -> str:
    """A moment as RFC 3339."""
    return rfc3339(datetime.fromtimestamp(seconds, UTC))


def moment(seconds: float) -> datetime:
    """A moment as the views carry it."""
    return datetime.fromtimestamp(seconds, UTC)
