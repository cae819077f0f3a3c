"""The shape of one operation's declaration.

An operation is declared once, here; REST, MCP, CLI, reference pages and contract tests are
projections of it. Handlers are bound by name in wiring, never imported here.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from schemas.records import Role

Effect = Literal["read", "change", "destroy"]
Scope = Literal["namespace", "record", "installation"]


@dataclass(frozen=True)
class Operation:
    """One operation.

    `scope` says where the namespace that a principal needs comes from: `namespace`, from the input
    (an absent one on a list means all that the principal may see); `record`, from the stored record
    that an id names (a foreign one is answered like an absent one); `installation`, none: the role alone decides.
    `untrusted` are JSON pointers into the output, `*` for any index, whose content came from agents or the outside.
    """

    name: str
    summary: str
    description: str
    input: type[BaseModel]
    output: type[BaseModel]
    method: Literal["GET", "POST", "DELETE"]
    path: str
    effect: Effect
    role: Role
    scope: Scope
    repeats_safely: bool = True
    imperative: bool = False
    agent_may: bool = False
    problems: tuple[str, ...] = ()
    untrusted: tuple[str, ...] = ()
    example: dict[str, Any] = field(default_factory=dict)

    @property
    def noun(self) -> str:
        return self.name.partition(".")[0]

    @property
    def verb(self) -> str:
        return self.name.partition(".")[2]

    @property
    def tool(self) -> str:
        """The name of the MCP tool."""
        return self.name.replace(".", "_")
