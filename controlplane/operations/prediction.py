"""Prediction: the claims of a plan, each of which gets exactly one verdict after the commit.

What is claimed here is computed from the decision alone and expected exactly, but for the traffic of routes, which is
estimated; a claim names the read that shows it and how long it may take. Resources that already are as wanted are
claimed too: a plan without steps still says what shall be true. Pure.
"""

from collections.abc import Sequence
from math import ceil
from typing import Any

from controlplane.operations.hourly import HOUR_S, band
from controlplane.operations.sources import source_name
from controlplane.operations.world import Wanted, World
from schemas.plan import Claim, Expected, Probe

READY_WITHIN_S = 30.0
PER_AGENT_S = 0.05  # 20 agents a second come or go: a tenth of what the slower database does undisturbed
PER_BATCH_S = 5.0


def probe(it: Wanted) -> Probe:
    """The read that shows a resource."""
    return Probe(operation=f"{it.kind.lower()}s.get", arguments={"namespace": it.namespace, "name": it.name})


def claims(wanted: Sequence[Wanted], world: World) -> list[Claim]:
    """One claim for each decision, in their order; then what is estimated of routes."""
    found = [_claim(f"c{index}", it, _replicas(it, world)) for index, it in enumerate(wanted)]
    for it in wanted:
        if it.kind == "Route" and it.action == "apply" and (known := world.traffic.get(_source(it))) is not None:
            found.append(_traffic(f"c{len(found)}", it, known))
    return found


def _source(it: Wanted) -> tuple[str, str]:
    return it.namespace, source_name(it.spec["source"])


def _traffic(claim_id: str, it: Wanted, known: Sequence[int]) -> Claim:
    """What a route's source may bring in the next hour, by those before: an estimate, which binds nothing."""
    expected = band(known)
    return Claim(
        claim_id=claim_id,
        subject=it.ref,
        measure=f"source_per_hour.{_source(it)[1]}",
        expected=Expected(value=None) if expected is None else Expected(**expected._asdict()),
        fidelity="unknown" if expected is None else "estimated",
        basis="precedent",
        verify_within_s=HOUR_S,
        probe=probe(it),
        binding=False,
    )


def _replicas(it: Wanted, world: World) -> int:
    """How many agents the fleet that this names has by now; those that go take their time as those that come."""
    known = world.at(*it.key)
    return int(known.spec["replicas"]) if it.kind == "Fleet" and known.live else 0


def _claim(claim_id: str, it: Wanted, replicas: int) -> Claim:
    measure, value, within_s = _expected(it, replicas)
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


def _expected(it: Wanted, replicas: int) -> tuple[str, Any, float]:
    """Measure, value, and within how long; a fleet's time grows with the agents that it has or shall have."""
    if it.action == "delete":
        return "absent", True, READY_WITHIN_S + PER_AGENT_S * replicas
    if it.kind == "Fleet":
        wanted = it.spec["replicas"]
        batch = it.spec.get("upgrade", {}).get("batch") or max(wanted, 1)
        batches = max(ceil(wanted / batch), 1)
        within_s = READY_WITHIN_S + PER_AGENT_S * max(wanted, replicas) + PER_BATCH_S * (batches - 1)
        return "ready_replicas", wanted, within_s
    return "condition.Ready", "true", READY_WITHIN_S


def measure(claim: Claim, output: dict[str, Any] | None) -> Any:
    """The value of the claim's measure in what its probe answered; None where it can not be seen."""
    if claim.measure == "absent":
        return output is None
    group, _, name = claim.measure.partition(".")
    if output is None:
        return True if group == "off_host" else None
    if claim.subject.kind in ("Host", "Node"):
        return _of_machine(claim, output["items"])
    status: dict[str, Any] = output.get("status", {})
    if group == "source_per_hour":
        return status[group] if source_name(output["spec"]["source"]) == name else None
    if group == "off_host":
        return status["host"] != name
    if group == "replay":
        return _of_replay(status.get("replay"), *name.split("."))
    if group == "at_host":
        return status["host"] == name or (status["host"] is None and status["placement"] == name)
    if group == "condition":
        found = (it["status"] for it in status.get("conditions", ()) if it["type"] == name)
        return next(found, None)
    return status.get(claim.measure)


def _of_replay(replay: dict[str, Any] | None, replay_id: str, state: str) -> bool:
    """Whether a replay was begun, is done, or is over by now; one that another took the place of is over."""
    mine = replay is not None and replay["replay_id"] == replay_id
    if state == "over":
        return not mine or replay is None or replay["state"] != "running"
    return mine and replay is not None and (state == "begun" or replay["state"] == state)


def _of_machine(claim: Claim, items: list[dict[str, Any]]) -> Any:
    """Whether a host has ended, or a node takes agents or is empty, in the list of those that there are."""
    field = "host_id" if claim.subject.kind == "Host" else "node"
    found = next((it for it in items if it[field] == claim.subject.name), None)
    if claim.measure == "ended":
        return found is None
    if found is None or claim.measure == "open":
        return found is not None and not found["draining"]
    return found["draining"] and (claim.measure == "closed" or found["hosts"] == 0)
