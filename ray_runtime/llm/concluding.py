"""What an answer concludes: its text, what the model cited for it, and what it had merely seen.

A structured answer cites by its own `because`: names of tools, or ids of calls. What names nothing of this turn is no
reference. Where the schema has `alternatives` and `confidence`, they are the conclusion's as well.
"""

from collections.abc import Sequence
from typing import Any

import orjson

from ray_runtime.awaits import Promise
from ray_runtime.sdk import Turn
from schemas.conclusion import ALTERNATIVE_CHARS_MAX, ALTERNATIVES_MAX, REFERENCES_MAX, TEXT_CHARS_MAX
from schemas.envelope import Envelope
from schemas.llm import ToolCall

Called = tuple[ToolCall, Promise[Any]]


def conclude(turn: Turn, answer: Any, told: Sequence[Envelope], called: Sequence[Called]) -> None:
    """Record what the turn came to; an empty answer concludes nothing."""
    text = answer if isinstance(answer, str) else orjson.dumps(answer, option=orjson.OPT_SORT_KEYS).decode()
    text = _short(text, TEXT_CHARS_MAX)
    if not text:
        return
    given = answer if isinstance(answer, dict) else {}
    called = [it for it in called if it[1].position >= 0]
    cited = _cited(given.get("because"), told, called)
    names = {id(it) for it in cited}
    seen = [it for it in (*told, *(promise for _, promise in called)) if id(it) not in names]
    turn.conclude(
        text,
        because=cited[-REFERENCES_MAX:],
        seen=seen[-REFERENCES_MAX:],
        alternatives=_alternatives(given.get("alternatives")),
        confidence=_confidence(given.get("confidence")),
    )


def _cited(because: Any, told: Sequence[Envelope], called: Sequence[Called]) -> list[Any]:
    """What the model named, in the order in which it came."""
    names = {it for it in _listed(because) if isinstance(it, str)}
    messages = [it for it in told if it.id in names]
    return [*messages, *(promise for call, promise in called if call.id in names or call.tool in names)]


def _alternatives(value: Any) -> list[str]:
    texts = [_short(it, ALTERNATIVE_CHARS_MAX) for it in _listed(value) if isinstance(it, str)]
    return [it for it in texts if it][:ALTERNATIVES_MAX]


def _confidence(value: Any) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
    return float(value) if known else None


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _short(text: str, most: int) -> str:
    text = text.replace("\x00", "")
    return text if len(text) <= most else text[: most - 1] + "…"
