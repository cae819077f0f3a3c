"""Which connections a spec uses: those without which what is declared can not do its work. A grant is no use. Pure."""

from collections.abc import Mapping
from typing import Any

USERS = ("Agent", "Fleet", "Route")


def connections_of(kind: str, spec: Mapping[str, Any]) -> set[str]:
    """What a route polls and calls, and what a model is asked over and has tools of; by name, of its own namespace."""
    if kind == "Route":
        ends = (spec["source"].get("poll"), spec["sink"], spec["reply"])
        return {it["connection"] for it in ends if it is not None and it.get("connection")}
    if kind not in USERS:
        return set()
    llm = (spec if kind == "Agent" else spec["template"]["spec"])["llm"]
    if llm is None:
        return set()
    return {it["connection"] for it in (llm, *llm["tools"]) if it.get("connection")}
