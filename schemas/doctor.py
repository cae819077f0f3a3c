"""What the doctor finds: each finding as data, with what to do next."""

from typing import Any, Literal

from pydantic import Field

from schemas.base import Frozen, Name, Output, Time
from schemas.problem import Next


class DoctorInput(Frozen):
    """Audit one namespace, or all that the caller reaches."""

    namespace: Name | None = None


class FindingSubject(Output):
    """What a finding is about; kinds of records beside resources carry their own word."""

    kind: str
    namespace: str
    name: str


class Finding(Output):
    """Something that should not be so."""

    check: str = Field(description="Which check found it, as `scope.left`.")
    weight: Literal["wrong", "late"] = Field(
        description="Wrong: nothing will mend it by itself. Late: it should have ended by now."
    )
    subject: FindingSubject
    detail: str
    metadata: dict[str, Any] = Field(description="Every variable of the detail.")
    since: Time | None
    next: list[Next]


class DoctorReport(Output):
    """All findings, up to 50 of each check."""

    healthy: bool
    text: str
    findings: list[Finding]
    checked: list[str] = Field(description="The checks that were made.")
    truncated: list[str] = Field(description="The checks that found more than is shown.")
    as_of: Time
