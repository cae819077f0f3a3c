"""Answers without what differs between two worlds by chance: ids, times, cursors, in the order they are met.

What is the same in one world stays the same here: two ids that are equal become the same mark, so that
a difference in which thing is named where is still seen.
"""

import re
from typing import Any

import orjson

_CHANCE = re.compile(
    r"urn:steward:call:[0-9a-f]+"
    r"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)"
    r"|00-[0-9a-f]{32}-[0-9a-f]{16}-01"
    r"|stw_[A-Za-z0-9_-]{43}"
    r"|\b(?:evt_)?[a-z2-7]{26}\b"
    r"|\b(?:msg|plan|chg|turn|tok|inv|agent|fleet|channel|secret|start)_[0-9a-z]{8,}\b"
    r"|sha256:[0-9a-f]{64}"
    r"|\bW[yz][A-Za-z0-9_-]{8,}"
)
_TIME = re.compile(r"\d{4}-|urn:")


class Telling:
    """The marks of one world."""

    def __init__(self) -> None:
        self._marks: dict[str, str] = {}

    def of(self, value: Any) -> str:
        return _CHANCE.sub(self._mark, orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode())

    def _mark(self, found: re.Match[str]) -> str:
        text = found[0]
        if _TIME.match(text):
            return "<now>"
        return self._marks.setdefault(text, f"<{len(self._marks)}>")
