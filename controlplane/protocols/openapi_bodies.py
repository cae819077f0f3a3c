"""Bodies of an OpenAPI document's operations: which kind is sent, what of it an argument can be, and its bytes. Pure.

JSON where there is any; else a form, the text fields of a multipart form, a text, or bytes, given as base64. What
needs more than that, as a file in a form, can not be sent, and says so.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from controlplane.resources.problems import refuse

FORM, MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"
TEXT, BYTES = "text/plain", "application/octet-stream"
KINDS = (FORM, MULTIPART, TEXT, BYTES)  # in the order in which one is chosen
BYTES_MAX = 262_144
DEPTH_MAX = 10  # of lists in lists, in a field of a form
AT = "/arguments/body"
Json = dict[str, Any]
Follow = Callable[[Any], Any]


@dataclass(frozen=True)
class Body:
    """The body of an operation: the schema of its argument (None: it has none), and the kind, empty for JSON; or why
    it can not be sent."""

    schema: Json | None = None
    needed: bool = False
    kind: str = ""
    unusable: str = ""


def chosen(given: Any, followed: Follow) -> Body:
    """What is sent of a `requestBody`."""
    body = followed(given) if isinstance(followed(given), dict) else {}
    needed, content = body.get("required") is True, body.get("content")
    media = {_plain(kind): it for kind, it in content.items()} if isinstance(content, dict) else {}
    for kind, it in media.items():
        if kind == "application/json" or kind.endswith("+json"):
            return Body(_schema(it) or {}, needed)
    why = ""
    for kind in (it for it in KINDS if it in media):
        schema, fault = _argument(kind, _schema(media[kind]), followed)
        if schema is not None:
            return Body(schema, needed, kind)
        why = why or fault
    if needed:
        return Body(unusable=why or f"its body is {', '.join(media)[:200] or 'of no kind'}, which can not be sent")
    return Body()


def content_of(kind: str, value: Any) -> tuple[bytes, str]:
    """The bytes of a body that is no JSON, and its content type; raises INVALID_VALUE."""
    if kind == TEXT:
        return _text(value, AT, "a body of text").encode(), "text/plain; charset=utf-8"
    if kind == BYTES:
        try:
            return base64.b64decode(value, validate=True), BYTES
        except (binascii.Error, ValueError):
            raise refuse("INVALID_VALUE", "a body of bytes is given as base64", field=AT) from None
    fields = [
        (name, _text(it, f"{AT}/{name}", "a field of a form")) for name, many in value.items() for it in _listed(many)
    ]
    if kind == FORM:
        return urlencode(fields).encode(), FORM
    return _multipart(fields)


def _argument(kind: str, schema: Json | None, followed: Follow) -> tuple[Json | None, str]:
    """The schema that the argument of a kind has, or why there can be none."""
    if kind == TEXT:
        found = followed(schema)
        kinds = _listed(found.get("type")) if isinstance(found, dict) else []
        if "object" in kinds or "array" in kinds or (isinstance(found, dict) and "properties" in found):
            return None, "its text is an object or a list"
        return schema or {"type": "string"}, ""
    if kind == BYTES:
        most = 4 * (-(-BYTES_MAX // 3))
        return {"type": "string", "contentEncoding": "base64", "maxLength": most}, ""
    form = followed(schema) if schema is not None else None
    if not isinstance(form, dict) or not isinstance(form.get("properties"), dict):
        return None, "its form has no properties"
    sent: Json = {}
    required: list[Any] = found if isinstance(found := form.get("required"), list) else []
    for name, it in form["properties"].items():
        if (why := _unfit(followed(it), followed)) is None:
            sent[name] = it
        elif name in required:
            return None, f"its form needs {name[:100]}, which is {why}"
    closed = {"type": "object", "properties": sent, "required": required, "additionalProperties": False}
    return closed, ""


def _unfit(schema: Any, followed: Follow, depth: int = 0) -> str | None:
    """What a field of a form is that no text can be; None where it can be sent."""
    if not isinstance(schema, dict):
        return None
    if depth > DEPTH_MAX:
        return "a list of lists without end"
    if schema.get("format") == "binary" or "contentMediaType" in schema or schema.get("contentEncoding"):
        return "a file"
    kinds = _listed(schema.get("type"))
    if "object" in kinds or "properties" in schema:
        return "an object"
    return _unfit(followed(schema["items"]), followed, depth + 1) if isinstance(schema.get("items"), dict) else None


def _multipart(fields: list[tuple[str, str]]) -> tuple[bytes, str]:
    """The same fields have the same boundary, so that what is sent once more is the same."""
    whole = repr(fields).encode()
    boundary = f"steward-{hashlib.sha256(whole).hexdigest()}"
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(name)}"\r\n\r\n{text}\r\n'.encode()
        for name, text in fields
    ]
    return b"".join(parts) + f"--{boundary}--\r\n".encode(), f"{MULTIPART}; boundary={boundary}"


def _quoted(name: str) -> str:
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _text(value: Any, at: str, what: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str | int | float):
        detail = f"{what} is text, a number, true or false{', or a list of these' if at != AT else ''}"
        raise refuse("INVALID_VALUE", detail, field=at)
    return str(value)


def _schema(media: Any) -> Json | None:
    found: Mapping[str, Any] | None = media.get("schema") if isinstance(media, dict) else None
    return dict(found) if isinstance(found, dict) else None


def _plain(kind: str) -> str:
    return kind.partition(";")[0].strip().lower()
