"""Whether a node could ever run what is asked for, by what Ray says of the nodes. Pure."""

from collections.abc import Iterable
from typing import Any

from schemas.compute import Needs

_RAYS = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory_bytes"}


def fits(needs: Needs, nodes: Iterable[dict[str, Any]]) -> bool:
    """Whether one living node has all of it, whatever runs there now."""
    asked = _asked(needs)
    return any(_has(node, asked, needs.labels) for node in nodes if node["alive"])


def lacking(needs: Needs, nodes: Iterable[dict[str, Any]]) -> str:
    """What is asked for and what there is, in words."""
    asked = ", ".join(f"{name} {amount:g}" for name, amount in sorted(_asked(needs).items()))
    labels = "".join(f", label {name}={it}" for name, it in sorted(needs.labels.items()))
    alive = [node for node in nodes if node["alive"]]
    there = "; ".join(f"{it['node']}: {_shown(it)}" for it in alive[:10]) or "none is alive"
    more = f"; and {len(alive) - 10} more" if len(alive) > 10 else ""
    return f"no node has {asked or 'nothing more'}{labels} (nodes: {there}{more})"


def _asked(needs: Needs) -> dict[str, float]:
    given = {ray: float(getattr(needs, ours)) for ray, ours in _RAYS.items()} | needs.custom
    return {name: amount for name, amount in given.items() if amount}


def _has(node: dict[str, Any], asked: dict[str, float], labels: dict[str, str]) -> bool:
    there, known = node["resources"], node.get("labels") or {}
    return all(there.get(name, 0.0) >= amount for name, amount in asked.items()) and labels.items() <= known.items()


def _shown(node: dict[str, Any]) -> str:
    hidden = ("object_store_memory",)
    return ", ".join(f"{name} {it:g}" for name, it in sorted(node["resources"].items()) if name not in hidden) or "none"
