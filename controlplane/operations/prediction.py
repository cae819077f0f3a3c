"""Prediction: the claims of a plan, each of which gets exactly one verdict after the commit.

What is claimed here is computed from the decision alone and expected exactly; a claim names the read
that shows it and how long it may take. Resources that already are as wanted are claimed too: a plan
without steps still says what shall be true. Pure.
"""

from collections.abc import Sequence
from typing import Any

from controlplane.operations.world import Wanted
from schemas.plan import Claim, Expected, Probe

READY_WITHIN_S = 30.0
PER_AGENT_S = 0.05


def probe(it: Wanted) -> Probe:
    """The read that shows a resource."""
    return Probe(operation=f"{it.kind.lower()}s.get", arguments={"namespace": it.namespace, "name": it.name})


def claims(wanted: Sequence[Wanted]) -> list[Claim]:
    """One claim for each decision, in their order."""
    return [_claim(f"c{index}", it) for index, it in enumerate(wanted)]


def _claim(claim_id: str, it: Wanted) -> Claim:
    measure, value, within_s = _expected(it)
    return Claim(
        claim_id=claim_id,
        subject=it.ref,
        measure=measure,
        expected=Expected(value=value),
        fidelity="exact",
        basis="computed",
        verify_within_s=within_s,
        probe=probe(it),
    )


def _expected(it: Wanted) -> tuple[str, Any, float]:
    if it.action == "delete":
        return "absent", True, READY_WITHIN_S
    if it.kind == "Fleet":
        replicas = it.spec["replicas"]
        return "ready_replicas", replicas, READY_WITHIN_S + PER_AGENT_S * replicas
    return "condition.Ready", "true", READY_WITHIN_S


def measure(claim: Claim, output: dict[str, Any] | None) -> Any:
    """The value of the claim's measure in what its probe answered; None where it can not be seen."""
    if claim.measure == "absent":
        return output is None
    if output is None:
        return None
    status: dict[str, Any] = output.get("status", {})
    group, _, name = claim.measure.partition(".")
    if group == "condition":
        found = (it["status"] for it in status.get("conditions", ()) if it["type"] == name)
        return next(found, None)
    return status.get(claim.measure)
