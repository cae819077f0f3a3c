"""Plan and Change: what a commit would do, and what became of it."""

from typing import Any, Literal

from pydantic import Field

from schemas.base import Frozen, Time
from schemas.resource import Kind, Ref

Undo = Literal["exact", "compensate", "none"]
OnMiss = Literal["keep", "revert", "hold"]


class ReadEntry(Frozen):
    """One thing that the plan rests on: absent names carry `uid: null` and their last generation."""

    kind: Kind
    namespace: str
    name: str
    uid: str | None
    generation: int


class Probe(Frozen):
    """A read that shows whether a postcondition holds."""

    operation: str
    arguments: dict[str, Any]


class FieldChange(Frozen):
    """One field that a step writes, as a JSON pointer into the resource."""

    path: str
    before: Any = None
    after: Any = None


class Step(Frozen):
    """One postcondition, with its probe and its way back."""

    index: int
    action: Literal["create", "update", "delete"]
    target: Ref
    changes: list[FieldChange]
    undo: Undo
    probe: Probe


class Expected(Frozen):
    """What a claim expects: a value."""

    value: Any


class Claim(Frozen):
    """A prediction that will get exactly one verdict."""

    claim_id: str
    subject: Ref
    measure: str
    expected: Expected
    fidelity: Literal["exact", "bounded", "estimated", "unknown"]
    basis: Literal["computed", "simulated", "precedent", "declared"]
    verify_within_s: float
    probe: Probe


class Cost(Frozen):
    """What it would cost; nothing is invented where it is not known."""

    known: bool = False
    amount: float | None = None
    currency: str | None = None


class Wait(Frozen):
    """Something that must come true before the change can be done."""

    reason: str
    message: str
    subject: Ref | None = None
    since: Time | None = None
    until: Time | None = None


class Plan(Frozen):
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


class Preview(Frozen):
    """What an imperative operation would do; the answer to `dry_run`."""

    dry_run: Literal[True] = True
    operation: str
    would: list[str] = Field(description="What would be done, a sentence each.")
    undo: Undo
    changed: Literal["none"] = "none"


class Moved(Frozen):
    """Something of the read set that is no longer what it was."""

    kind: Kind
    namespace: str
    name: str
    planned_generation: int
    current_generation: int


class CommitResult(Frozen):
    """What a commit answered."""

    outcome: Literal["committed", "already_committed", "superseded", "stale", "held"]
    plan_id: str
    change_id: str | None = None
    new_plan_id: str | None = None
    moved: list[Moved] = Field(default_factory=list)
    approval_id: str | None = None


class StepState(Frozen):
    """Whether a step's postcondition holds."""

    index: int
    done: bool


class ClaimState(Frozen):
    """A claim's verdict; null until there is one."""

    claim_id: str
    verdict: Literal["held", "missed", "unverifiable"] | None
    observed: Any = None
    verified_at: Time | None = None


class Change(Frozen):
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
