"""The guard's decision on one effect. Pure.

An agent may do what its mandate grants, and nothing else: a grant names an effect (or all of a
protocol, `machine.*`) over one connection, or over none. What no grant covers is denied, and the
verdict says so. Hosts hold no credential, so whatever needs one passes here; only the operating
system can enforce more, which is why containment is `cooperative` but for agents that it confines.
Reading who is there in its own namespace needs no grant: an agent could as well send to every name.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from schemas.discovery import FIND
from schemas.effect import Verdict

OWN = frozenset({FIND})  # what shows an agent nothing beyond its own namespace


def judge(effect: str, connection: str | None, grants: Sequence[dict[str, Any]], *, enforced: bool = False) -> Verdict:
    """The verdict on an effect over a connection; `enforced`: the system keeps who asks from all else."""
    contained: Literal["enforced", "cooperative"] = "enforced" if enforced else "cooperative"
    granted = effect in OWN or any(_names(it["effect"], effect) and it.get("connection") == connection for it in grants)
    outcome: Literal["allow", "deny"] = "allow" if granted else "deny"
    features = {"grant": {"known": True, "value": int(granted)}}
    return Verdict(
        outcome=outcome, rules=["grant" if granted else "no-grant"], features=features, containment=contained
    )


def measured(verdict: Verdict, magnitudes: Mapping[str, int], most: Mapping[str, int | None]) -> Verdict:
    """The verdict with what the effect would touch; denied where the connection allows less."""
    beyond = [f"{name}_max" for name, it in most.items() if it is not None and magnitudes.get(name, 0) > it]
    found = featured(verdict, **magnitudes)
    return found.model_copy(update={"outcome": "deny", "rules": beyond}) if beyond else found


def featured(verdict: Verdict, **known: Any) -> Verdict:
    """A verdict with features that are known besides."""
    more = {name: {"known": True, "value": value} for name, value in known.items()}
    return verdict.model_copy(update={"features": {**verdict.features, **more}})


def _names(granted: str, effect: str) -> bool:
    return granted == effect or (granted.endswith(".*") and effect.startswith(granted[:-1]))
