"""What a decision may know: resources as they are recorded, and what rests on them.

A snapshot is read once (`snapshot`), and handed to the pure stages. It holds declared things only,
never status: no host, no turn, no condition decides a plan. An absent name is known too, by the
generation and revision it last had. Nothing here reads anything.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from controlplane.operations.loops import Heard, Leads
from controlplane.operations.workers import worker_spec
from schemas.resource import Kind, Ref

Key = tuple[Kind, str, str]  # kind, namespace, name
Spec = dict[str, Any]


@dataclass(frozen=True)
class Known:
    """One name as it is recorded; `uid` is None while nothing lives under it."""

    kind: Kind
    namespace: str
    name: str
    uid: str | None = None
    generation: int = 0
    revision: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    spec: Spec = field(default_factory=dict)
    owner: str | None = None
    created_at: float = 0.0

    @property
    def key(self) -> Key:
        return self.kind, self.namespace, self.name

    @property
    def live(self) -> bool:
        return self.uid is not None

    @property
    def ref(self) -> Ref:
        return Ref(kind=self.kind, namespace=self.namespace, name=self.name)


@dataclass(frozen=True)
class Members:
    """A selected membership, whose set a plan was decided on; a commit finds it moved when there is another.

    `siblings` are the names of live agents that are named like a fleet's and are not the fleet's; `watchers`
    are what watches a channel by its spec, as kind/name; `senders` the connections that send a value of a secret;
    `users` what uses a connection by its spec, as kind/name;
    `routes` from which channel to which the routes of a namespace lead.
    """

    selects: str
    namespace: str
    name: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class World:
    """The snapshot that a proposal is decided on."""

    known: Mapping[Key, Known]
    code: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    owners: Mapping[str, Ref] = field(default_factory=dict)
    members: tuple[Members, ...] = ()
    agents: Mapping[str, int] = field(default_factory=dict)  # how many live in each namespace
    traffic: Mapping[tuple[str, str], tuple[int, ...]] = field(default_factory=dict)
    """Of sources of routes, by namespace and `source_name`: what each of the last hours brought, the newest first."""
    firings: Mapping[str, int] = field(default_factory=dict)
    """Of the schedules of polls: how often each is due in the next hour."""
    leads: Mapping[str, tuple[Leads, ...]] = field(default_factory=dict)
    """Of each namespace for which circles are looked for: the routes that there are."""
    diverged: Mapping[tuple[str, str], list[str]] = field(default_factory=dict)
    """Code by namespace and digest that differed in a replay, and what differed first."""
    heard: Mapping[str, Heard] = field(default_factory=dict)
    """Of the same namespaces: who reads the channels that routes lead to, and who was heard where."""
    failing: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """Of sources of routes, by namespace and `source_name`: the route whose poll fails."""

    def at(self, kind: Kind, namespace: str, name: str) -> Known:
        return self.known.get((kind, namespace, name)) or Known(kind, namespace, name)

    def names(self, selects: str, namespace: str, name: str) -> tuple[str, ...]:
        for it in self.members:
            if (it.selects, it.namespace, it.name) == (selects, namespace, name):
                return it.names
        return ()


@dataclass(frozen=True)
class Wanted:
    """One decision of a writer, admitted: a resource as it shall be, or a name that shall be free.

    A secret's values are `{"ref", "mac"}`, or `{"kept": true}` for what shall stay as it is.
    `must_exist` refuses the deletion of what is not there; a revert may find it gone already.
    `place` is where it stood in the input; it is no part of the decision. What another decision names, and what
    is made because of that alone, is `implied`: whether it is, is looked at anew with each plan.
    """

    action: str
    kind: Kind
    namespace: str
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    spec: Spec = field(default_factory=dict)
    must_exist: bool = True
    place: str = field(default="", compare=False)
    implied: bool = False

    @property
    def key(self) -> Key:
        return self.kind, self.namespace, self.name

    @property
    def ref(self) -> Ref:
        return Ref(kind=self.kind, namespace=self.namespace, name=self.name)

    @property
    def agent_spec(self) -> Spec | None:
        """The spec of the agents that this makes, if any."""
        if self.action == "delete" or self.kind not in ("Agent", "Fleet", "Route"):
            return None
        if self.kind == "Route":
            return worker_spec(self.namespace, self.name, self.spec)
        spec: Spec = self.spec if self.kind == "Agent" else self.spec["template"]["spec"]
        return spec

    @property
    def code(self) -> str | None:
        """The digest of the code that this makes agents run, if any."""
        digest: str | None = None if self.agent_spec is None else self.agent_spec["code"]["digest"]
        return digest


def fleet_of(name: str) -> tuple[str, int] | None:
    """The fleet, and the place in it, that an agent of this name would have."""
    fleet, dash, index = name.rpartition("-")
    if not dash or not fleet or not index.isdigit() or (len(index) > 1 and index[0] == "0") or len(index) > 6:
        return None
    return fleet, int(index)
