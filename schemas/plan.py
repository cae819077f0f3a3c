"""Plan and Change: what a commit would do, and what became of it."""

from typing import Any, Literal

from pydantic import Field

from schemas.base import Output, Time
from schemas.resource import Kind, Target

Undo = Literal["exact", "compensate", "none"]
OnMiss = Literal["keep", "revert", "hold"]


class ReadEntry(Output):
    """One thing that the plan rests on: absent names carry `uid: null` and their last generation."""

    kind: Kind
    namespace: str
    name: str
    uid: str | None
    generation: int


class Probe(Output):
    """A read that shows whether a postcondition holds."""

    operation: str
    arguments: dict[str, Any]


class FieldChange(Output):
    """One field that a step writes, as a JSON pointer into the resource."""

    path: str
    before: Any = None
    after: Any = None


class Step(Output):
    """One postcondition, with its probe and its way back."""

    index: int
    action: Literal["create", "update", "delete", "migrate", "drain", "open", "replay"]
    target: Target
    changes: list[FieldChange]
    undo: Undo
    probe: Probe


class Expected(Output):
    """What a claim expects: a value; of an estimate, a band that it lies in, both ends included."""

    value: Any
    low: float | None = None
    high: float | None = None


class Claim(Output):
    """A prediction that will get exactly one verdict."""

    claim_id: str
    subject: Target
    measure: str
    expected: Expected
    fidelity: Literal["exact", "bounded", "estimated", "unknown"]
    basis: Literal["computed", "simulated", "precedent", "declared"]
    verify_within_s: float
    probe: Probe
    binding: bool = Field(
        default=True,
        description="False of an estimate: it is looked at when its time is over, holds up nothing until then, and "
        "decides nothing about the change. Where its fidelity is `unknown`, what is observed then is told with the "
        "verdict `unverifiable`.",
    )


class Cost(Output):
    """What it would cost; nothing is invented where it is not known."""

    known: bool = False
    amount: float | None = None
    currency: str | None = None


class Wait(Output):
    """Something that must come true before the change can be done."""

    reason: str
    message: str
    subject: Target | None = None
    since: Time | None = None
    until: Time | None = None


class PlanNote(Output):
    """What is worth knowing of a plan beside its steps and claims; it decides nothing."""

    subject: Target
    code: Literal[
        "DRAFTED", "DROPPED", "NARROWED", "GUARANTEE", "POLLS", "LOOP", "LOOP_OBSERVED", "DIVERGED", "NO_COMPUTE"
    ]
    message: str
    data: dict[str, Any] = Field(default_factory=dict)


class Plan(Output):
    """An immutable plan, sealed by its digests."""

    plan_id: str
    principal: str
    namespace: str
    as_of: Time
    expires_at: Time
    digest: str = Field(description="Over principal, namespace, decisions and read set.")
    claims_digest: str
    read_set: list[ReadEntry]
    steps: list[Step]
    claims: list[Claim]
    cost: Cost = Field(default_factory=Cost)
    waits_on: list[Wait] = Field(default_factory=list)
    reverts: str | None = Field(default=None, description="The change that this plan takes back.")
    notes: list[PlanNote] = Field(
        default_factory=list,
        description="Of routes: what is drafted, lost, promised, polled, and may go in circles. "
        "Of code: that it differed in a replay. Of a mandate: what it grants in vain.",
    )


class Preview(Output):
    """What an imperative operation would do; the answer to `dry_run`."""

    dry_run: Literal[True] = True
    operation: str
    would: list[str] = Field(description="What would be done, a sentence each.")
    undo: Undo
    changed: Literal["none"] = "none"
    steps: list[Step] = Field(
        default_factory=list, description="Of what would be a change: its first steps, 50 at most."
    )
    claims: list[Claim] = Field(default_factory=list, description="What would be claimed of these steps.")


class Moved(Output):
    """Something of the read set that is no longer what it was."""

    kind: Kind
    namespace: str
    name: str
    planned_generation: int
    current_generation: int


class CommitResult(Output):
    """What a commit answered."""

    outcome: Literal["committed", "already_committed", "superseded", "stale", "held"]
    plan_id: str
    change_id: str | None = None
    new_plan_id: str | None = None
    moved: list[Moved] = Field(default_factory=list)
    approval_id: str | None = None


class StepState(Output):
    """Whether a step's postcondition holds."""

    index: int
    done: bool


class ClaimState(Output):
    """A claim's verdict; null until there is one."""

    claim_id: str
    verdict: Literal["held", "missed", "unverifiable"] | None
    observed: Any = None
    verified_at: Time | None = None


class Change(Output):
    """The record of a committed plan; `outcome` is derived from its claims."""

    change_id: str
    plan_id: str
    outcome: Literal["open", "verified", "missed", "unverifiable", "superseded"]
    done: bool
    principal: str
    committed_at: Time
    on_miss: OnMiss = "keep"
    steps: list[StepState]
    claims: list[ClaimState]
    waits_on: list[Wait] = Field(default_factory=list)
    reverts: str | None = None
    reverted_by: str | None = None
    operation: str | None = Field(default=None, description="The operation that made it so at once; null: a commit.")
