"""What a far side offers over a connection: tools, pinned by digest, and what an operator has accepted of them."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from schemas.base import ClosedKeys, Frozen, Name, Output, Text, Time, digest
from schemas.calls import Imperative, Limit, Page
from schemas.plan import FieldChange
from schemas.ports import Role

ToolName = Annotated[Text, Field(min_length=1, max_length=200)]
ToolDigest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
State = Literal["new", "accepted", "changed", "gone", "unusable"]
RoleMap = Annotated[dict[Annotated[Text, Field(max_length=200)], Role], Field(max_length=1000), ClosedKeys()]


class Offered(Frozen):
    """A tool as the far side describes it; `fault` says why it can not be used, if so."""

    name: str
    description: str = ""
    input_schema: dict[str, Any] = Field(default_factory=dict)
    output_schema: dict[str, Any] | None = None
    fault: str = ""

    @property
    def digest(self) -> str:
        """Of name, description and schemas: whatever of them changes, it is another."""
        return digest(self.model_dump(mode="json", exclude={"fault"}))


@dataclass(frozen=True)
class Pin:
    """What is kept of one tool: as it was seen last, and as it was accepted, if it was, with the roles of its
    arguments."""

    seen: Offered
    digest: str
    gone: bool = False
    accepted: str | None = None
    accepted_as: Offered | None = None
    roles: dict[str, Role] = field(default_factory=dict)

    @property
    def state(self) -> State:
        if self.gone:
            return "gone"
        if self.accepted is not None:
            return "accepted" if self.accepted == self.digest else "changed"
        return "unusable" if self.seen.fault else "new"


class ToolsInput(Frozen):
    """The tools that a connection's far side offers."""

    namespace: Name = "default"
    name: Name
    refresh: bool = Field(default=True, description="Ask the far side now; otherwise answer what is known of it.")
    limit: Limit = 100
    page: Page | None = None


class ToolView(Output):
    """A tool: as it was seen last, and what of it was accepted."""

    tool: str
    effect: str = Field(description="The effect that it is to agents, over this connection.")
    state: State
    digest: str = Field(description="Of name, description and schemas, as seen last: what accepting it names.")
    description: str
    input_schema: dict[str, Any]
    output_schema: dict[str, Any] | None
    fault: str | None = Field(description="Why it can not be used, if it can not.")
    roles: RoleMap = Field(description="Of its arguments: as accepted, or as guessed from its schema.")
    changes: list[FieldChange] = Field(description="What differs from what was accepted.")
    accepted_digest: str | None
    accepted_by: str | None
    accepted_at: Time | None
    seen_at: Time


class ToolList(Output):
    """All tools that are known of a connection, by name."""

    items: list[ToolView]
    next_page: str | None = None
    trouble: str | None = Field(description="Why the far side could not be asked now; then this is what was known.")


class AcceptInput(Imperative):
    """Accept a tool as it was seen, by its digest."""

    namespace: Name = "default"
    name: Name
    tool: ToolName
    digest: ToolDigest
    roles: RoleMap | None = Field(default=None, description="Of its arguments; those that are not named are guessed.")
