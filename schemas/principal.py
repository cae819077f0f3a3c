"""Who calls, and the call itself as handlers see it."""

from dataclasses import dataclass

from schemas.base import PLANE_NAME
from schemas.records import Role


@dataclass(frozen=True)
class Principal:
    """A caller whose token was checked. `namespaces == ("*",)` reaches all; `agent` is set for role `agent`."""

    name: str
    role: Role
    namespaces: tuple[str, ...]
    agent: str | None = None
    token_id: str = ""

    @property
    def identity(self) -> str:
        """Whose calls repeat each other: tokens of one name are one caller only while they reach the same."""
        if "*" in self.namespaces:
            return self.name
        return f"{self.name}@{','.join(sorted(set(self.namespaces)))}" + (f"/{self.agent}" if self.agent else "")

    def reaches(self, namespace: str) -> bool:
        return "*" in self.namespaces or namespace in self.namespaces


@dataclass(frozen=True)
class Call:
    """One call of one operation, at one moment (`now`: seconds since 1970, from the boundary's clock).

    `traceparent` is the W3C trace context that it is part of, if it brought a valid one.
    """

    principal: Principal
    operation: str
    now: float
    request_id: str | None = None
    dry_run: bool = False
    traceparent: str | None = None


PLANE = Principal(PLANE_NAME, "admin", ("*",))
