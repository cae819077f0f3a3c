"""Who calls, and the call itself as handlers see it."""

from dataclasses import dataclass

from schemas.records import Role


@dataclass(frozen=True)
class Principal:
    """A caller whose token was checked. `namespaces == ("*",)` reaches all; `agent` is set for role `agent`."""

    name: str
    role: Role
    namespaces: tuple[str, ...]
    agent: str | None = None
    token_id: str = ""

    def reaches(self, namespace: str) -> bool:
        return "*" in self.namespaces or namespace in self.namespaces


@dataclass(frozen=True)
class Call:
    """One call of one operation, at one moment (`now`: seconds since 1970, from the boundary's clock)."""

    principal: Principal
    operation: str
    now: float
    request_id: str | None = None
    dry_run: bool = False


PLANE = Principal("steward", "admin", ("*",))
