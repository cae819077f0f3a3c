"""The guard's decision on one effect. Pure.

An agent may do what its mandate grants, and nothing else: a grant names an effect (or all of a
protocol, `machine.*`) over one connection, or over none. What no grant covers is denied, and the
verdict says so. Hosts hold no credential, so whatever needs one passes here; only the operating
system could enforce more, which is why containment is `cooperative`.
"""

from collections.abc import Sequence
from typing import Any

from schemas.effect import Verdict


def judge(effect: str, connection: str | None, grants: Sequence[dict[str, Any]]) -> Verdict:
    """The verdict on an effect over a connection."""
    for grant in grants:
        if _names(grant["effect"], effect) and grant.get("connection") == connection:
            return Verdict(outcome="allow", rules=["grant"], features={"grant": {"known": True, "value": 1}})
    return Verdict(outcome="deny", rules=["no-grant"], features={"grant": {"known": True, "value": 0}})


def _names(granted: str, effect: str) -> bool:
    return granted == effect or (granted.endswith(".*") and effect.startswith(granted[:-1]))
