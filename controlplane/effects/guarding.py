"""The guard's decision on one effect. Pure.

An agent may do what its mandate grants, and nothing else: a grant names an effect (or all of a
protocol, `machine.*`) over one connection, or over none. What no grant covers is denied, and the
verdict says so. Hosts hold no credential, so whatever needs one passes here; only the operating
system can enforce more, which is why containment is `cooperative` but for agents that it confines.
"""

from collections.abc import Sequence
from typing import Any, Literal

from schemas.effect import Verdict


def judge(effect: str, connection: str | None, grants: Sequence[dict[str, Any]], *, enforced: bool = False) -> Verdict:
    """The verdict on an effect over a connection; `enforced`: the system keeps who asks from all else."""
    contained: Literal["enforced", "cooperative"] = "enforced" if enforced else "cooperative"
    granted = any(_names(it["effect"], effect) and it.get("connection") == connection for it in grants)
    outcome: Literal["allow", "deny"] = "allow" if granted else "deny"
    features = {"grant": {"known": True, "value": int(granted)}}
    return Verdict(
        outcome=outcome, rules=["grant" if granted else "no-grant"], features=features, containment=contained
    )


def featured(verdict: Verdict, **known: Any) -> Verdict:
    """A verdict with features that are known besides."""
    more = {name: {"known": True, "value": value} for name, value in known.items()}
    return verdict.model_copy(update={"features": {**verdict.features, **more}})


def _names(granted: str, effect: str) -> bool:
    return granted == effect or (granted.endswith(".*") and effect.startswith(granted[:-1]))
