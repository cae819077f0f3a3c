"""Problems: every refusal, on every surface, as data (RFC 9457) with executable next steps.

A `Problem` says one cause (`reason`), where the input is wrong (`field`, a JSON pointer), every
variable of its message (`metadata`), what kind of way out there is (`recovery`) and the ways
themselves (`next`). It knows nothing of HTTP beyond its status number.
"""

from typing import Any, Literal

from pydantic import Field

from schemas.base import Output

Recovery = Literal["fix_input", "wait", "reauthenticate", "request_approval", "replan", "escalate", "stop"]


class Next(Output):
    """One executable step out of a problem, or on from a result."""

    operation: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    why: str
    clears: bool = False


class Problem(Output):
    """RFC 9457 problem details, with Steward's extensions."""

    type: str
    title: str
    status: int = Field(ge=400, le=599)
    detail: str
    instance: str = ""
    reason: str
    field: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    recovery: Recovery
    retry_after_s: float | None = None
    changed: Literal["none", "unknown"] = "none"
    next: list[Next] = Field(default_factory=list)


class Refusal(Exception):  # noqa: N818 - a refusal is an answer, carried as an exception
    """Carries a Problem up to the boundary that answers it."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.reason}: {problem.detail}")
        self.problem = problem
