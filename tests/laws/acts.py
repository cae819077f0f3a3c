"""Random histories of operators: what Hypothesis draws, and how a plane goes through it.

Every example has a namespace of its own, so that one database serves them all. An act that is
refused is part of the history: its Problem is kept, and each of its next steps is executed.
"""

import itertools
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from schemas.principal import Principal
from schemas.problem import Problem, Refusal
from tests.operations.plane import Plane, agent, channel, fleet, secret

NAMES = ("one", "two", "zoo-0")
KINDS = ("Channel", "Secret", "Agent", "Fleet")
_namespaces = itertools.count(1)
VALUE = "the-secret-value"


@dataclass(frozen=True)
class Act:
    """One thing that an operator or the time does."""

    verb: str
    kind: str = "Channel"
    name: str = "one"
    variant: int = 0
    label: str | None = None
    which: int = 0


def manifest(act: Act, namespace: str) -> dict[str, Any]:
    """A small number of specs of each kind, so that histories meet."""
    labels = {} if act.label is None else {"label": act.label}
    if act.kind == "Channel":
        return channel(act.name, namespace, labels, retention_s=100 + act.variant)
    if act.kind == "Agent":
        watches = [{"channel": NAMES[act.variant - 1]}] if act.variant else []
        return agent(act.name, namespace, labels, suspend_after_ms=act.variant, watches=watches)
    if act.kind == "Fleet":
        return fleet("zoo", act.variant, namespace, suspend_after_ms=1 + act.variant // 2)
    values: dict[str, Any] = {"a": f"{VALUE}-{act.variant}"}
    return secret(act.name, namespace, **values, **({"b": {"set": True}} if act.variant == 2 else {"b": VALUE}))


def acts(*verbs: str) -> st.SearchStrategy[Act]:
    return st.builds(
        Act,
        verb=st.sampled_from(verbs),
        kind=st.sampled_from(KINDS),
        name=st.sampled_from(NAMES),
        variant=st.integers(0, 2),
        label=st.sampled_from((None, "x", "y")),
        which=st.integers(0, 5),
    )


HISTORY = st.lists(acts("apply", "apply", "apply", "delete", "revert", "settle", "fail", "late"), max_size=10)


@dataclass
class Story:
    """A plane in one namespace, and what happened there."""

    plane: Plane
    namespace: str = field(default_factory=lambda: f"n{next(_namespaces)}")
    plans: list[dict[str, Any]] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def principal(self) -> Principal:
        return Principal("op", "operator", (self.namespace,))

    async def go(self, history: list[Act]) -> "Story":
        for act in history:
            await self.do(act)
        return self

    async def do(self, act: Act) -> None:
        if act.verb == "settle":
            await self.plane.settle()
        elif act.verb == "fail":
            await self.plane.settle(starts=False)
            await self.plane.finish_starts("failed", {"reason": "HANDLER_ERROR", "detail": "on purpose"})
        elif act.verb == "late":
            self.plane.now += 20
        else:
            plan = await self.plan(act)
            if plan is not None:
                await self.commit(plan, on_miss=("keep", "revert", "hold")[act.which % 3])

    async def plan(self, act: Act) -> dict[str, Any] | None:
        """The plan of an act, or None when it is refused."""
        if act.verb == "revert":
            if not self.changes:
                return None
            return await self.asked("changes.revert", change_id=self.changes[act.which % len(self.changes)])
        name = "zoo" if act.kind == "Fleet" else act.name
        if act.verb == "delete":
            return await self.asked(f"{act.kind.lower()}s.delete", namespace=self.namespace, name=name)
        return await self.asked("resources.propose", manifests=[manifest(act, self.namespace)])

    async def asked(self, operation: str, **raw: Any) -> dict[str, Any] | None:
        try:
            return await self.plane.call(operation, self.principal, **raw)
        except Refusal as refusal:
            self.problems.append(refusal.problem)
            return None

    async def commit(self, plan: dict[str, Any], **rest: Any) -> dict[str, Any] | None:
        result = await self.asked("plans.commit", plan_id=plan["plan_id"], **rest)
        self.plans.append(plan)
        if result is not None and result["outcome"] == "committed":
            self.changes.append(result["change_id"])
        return result

    async def end(self) -> None:
        """Let everything come to its end: all deadlines pass."""
        await self.plane.settle()
        self.plane.now += 1_000
        await self.plane.settle()
