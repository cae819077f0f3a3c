"""Whether a node could ever run what is asked for, by what Ray says of the nodes. Pure."""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from controlplane.effects.confining import apart_of
from schemas.compute import Needs
from schemas.isolation import Resources
from schemas.keeping import unfit

REMEMBERED_MAX = 10_000
Wanted = Needs | Resources

_RAYS = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory_bytes"}


def fits(needs: Wanted, nodes: Iterable[dict[str, Any]], closed: Collection[str] = ()) -> bool:
    """Whether one living node has all of it, whatever runs there now; none that is closed."""
    asked = _asked(needs)
    return any(_has(node, asked, needs.labels) for node in nodes if node["alive"] and node["node"] not in closed)


def lacking(needs: Wanted, nodes: Iterable[dict[str, Any]], closed: Collection[str] = ()) -> str:
    """What is asked for and what there is, in words."""
    asked = ", ".join(f"{name} {amount:g}" for name, amount in sorted(_asked(needs).items()))
    labels = "".join(f", label {name}={it}" for name, it in sorted(needs.labels.items()))
    alive = [node for node in nodes if node["alive"]]
    there = "; ".join(f"{it['node']}: {_shown(it, closed)}" for it in alive[:10]) or "none is alive"
    more = f"; and {len(alive) - 10} more" if len(alive) > 10 else ""
    return f"no node has {asked or 'nothing more'}{labels} (nodes: {there}{more})"


def refused(needs: Wanted) -> str:
    """What of it Ray takes of nobody, in words; empty when it takes all. So may be what was declared before."""
    found = unfit(needs)
    return f"it does not take resources: {': '.join(found)}" if found is not None else ""


def _asked(needs: Wanted) -> dict[str, float]:
    given = {ray: float(getattr(needs, ours)) for ray, ours in _RAYS.items()} | needs.custom
    return {name: amount for name, amount in given.items() if amount}


def _has(node: dict[str, Any], asked: dict[str, float], labels: dict[str, str]) -> bool:
    there, known = node["resources"], node.get("labels") or {}
    return all(there.get(name, 0.0) >= amount for name, amount in asked.items()) and labels.items() <= known.items()


def _shown(node: dict[str, Any], closed: Collection[str]) -> str:
    if node["node"] in closed:
        return "drained"
    hidden = ("object_store_memory",)
    return ", ".join(f"{name} {it:g}" for name, it in sorted(node["resources"].items()) if name not in hidden) or "none"


class Fitting:
    """Whether an agent's own host could be on a node; remembered for as long as the nodes are the same, and open."""

    def __init__(
        self, nodes: Callable[[], Sequence[dict[str, Any]] | None], closed: Callable[[], Collection[str]]
    ) -> None:
        self._nodes, self._closed = nodes, closed
        self._of: tuple[Sequence[dict[str, Any]] | None, frozenset[str]] = None, frozenset()
        self._lacks: dict[str, str] = {}

    def lacks(self, reserved: str) -> str:
        """What no node has of what it needs, or Ray refuses; empty when one has all, or nobody knows yet."""
        nodes, closed = self._nodes(), self._closed()
        if not reserved or nodes is None:
            return ""
        if nodes is not self._of[0] or closed != self._of[1] or len(self._lacks) > REMEMBERED_MAX:
            self._of, self._lacks = (nodes, frozenset(closed)), {}
        if (known := self._lacks.get(reserved)) is None:
            apart = apart_of(reserved)
            needs = Resources.model_validate(apart.resources if apart is not None else {})
            fit = fits(needs, nodes, closed)
            known = self._lacks[reserved] = refused(needs) or ("" if fit else lacking(needs, nodes, closed))
        return known
