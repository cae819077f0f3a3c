"""Effect, verdict, receipt: one action that a turn asks for, and what came of it."""

from typing import Any, Literal

from pydantic import Field

from schemas.base import Frozen, Time
from schemas.problem import Problem


class Verdict(Frozen):
    """The guard's answer; which rules decided, from which features."""

    outcome: Literal["allow", "deny", "hold"]
    rules: list[str]
    features: dict[str, Any] = Field(default_factory=dict)
    containment: Literal["enforced", "cooperative"] = "cooperative"


class Receipt(Frozen):
    """What came of an effect."""

    outcome: Literal["succeeded", "failed", "in_doubt"]
    result: Any = None
    problem: Problem | None = None
    finished_at: Time | None = None


class Effect(Frozen):
    """One journaled effect."""

    effect_id: str
    turn_id: str
    branch: str
    position: int
    effect: str
    connection: str | None = None
    arguments: dict[str, Any]
    idempotency_key: str
    send_by: Time
    verdict: Verdict
    receipt: Receipt | None = None
