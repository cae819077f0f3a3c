"""What a far side says, as it may be kept: without the secret that it was sent, and as characters. Pure."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, quote_plus

SCRUBBED = "[secret]"


def scrubbed(value: Any, secret: str) -> Any:
    """A JSON value without the secret, wherever its text holds it, also as a URL would."""
    return _without(value, _forms(secret)) if secret else value


def shortened(text: str, most: int, secret: str) -> str:
    """The beginning of a text; the secret goes first, since one that is cut is found no more."""
    return str(scrubbed(text, secret))[:most]


def begun(text: str, secret: str) -> int:
    """How many characters at the end of a text may be the beginning of the secret."""
    found = 0
    for form in _forms(secret) if secret else ():
        at = text.find(form[0], max(0, len(text) - len(form) + 1))
        while at >= 0 and not form.startswith(text[at:]):
            at = text.find(form[0], at + 1)
        found = max(found, len(text) - at if at >= 0 else 0)
    return found


def encodable(text: str) -> str:
    """A text whose halves of UTF-16 pairs are joined; what stays alone of them is replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def is_first_half(text: str) -> bool:
    """Whether a text ends within a pair."""
    return "\ud800" <= text[-1:] <= "\udbff"


def _forms(secret: str) -> list[str]:
    return sorted({secret, quote(secret, safe=""), quote_plus(secret)}, key=len, reverse=True)


def _without(value: Any, forms: Sequence[str]) -> Any:
    if isinstance(value, str):
        for form in forms:
            value = value.replace(form, SCRUBBED)
        return value
    if isinstance(value, list):
        return [_without(it, forms) for it in value]
    if isinstance(value, dict):
        return {_without(key, forms): _without(it, forms) for key, it in value.items()}
    return value
