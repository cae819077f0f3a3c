"""A turn as its commits need it, whom to ring after one, and the envelopes that it sends. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypedDict

import msgspec
import orjson
from msgspec.structs import replace

from controlplane.effects.chaining import Chain
from schemas.base import rfc3339, short_id
from schemas.branches import FORMAT, ROOT, Place
from schemas.frames import JOURNAL_BYTES_MAX
from schemas.wire import Entry

Row = tuple[str, Sequence[Any], int]
NOBODY = ""  # the name that nothing has


class TurnRef(msgspec.Struct, frozen=True):
    """One turn, as its commits need it.

    `entries` is the journal's length, `branches` those of what is not the handler itself, `recorded` whether it has a
    row. `pinned` is what of the spec the turn began on, and replays on; what it may do is `spec`, as of now.
    `scope` is the innermost one that it lies within; `scoped` says that its agent lives in one.
    `taint` is the label of its message, which all that it sends carries on.
    `looked_for` is the generation that it was held against, `ends_by` until when it may stay on older code;
    Of a message of a `queue` it is that channel's uid, with the `key` that is held as long as the turn is not over.
    `proving` is the code that it is on, while its journal is only replayed on newer code, up to `rests_at`.
    `given` is a guard, with which its units begin: it finds what the turn was handed before that was committed.
    """

    agent: str
    namespace: str
    name: str
    owner: str
    epoch: int
    version: int
    turn_id: str
    message_id: str
    trigger: str
    message: str
    attempts: int
    digest: str
    started_at: float
    entries: int
    recorded: bool
    spec: dict[str, Any] = {}
    pinned: dict[str, Any] = {}
    onbehalfof: str | None = None
    traceparent: str | None = None
    replyto: str | None = None
    by_operator: bool = False
    branches: dict[str, int] = {}
    deadline: float | None = None
    intentid: str | None = None
    scope: str | None = None
    scoped: bool = False
    taint: str | None = None
    chain: Chain | None = None
    looked_for: int = 0
    ends_by: float | None = None
    proving: str = ""
    rests_at: frozenset[Place] = frozenset()
    format: int = FORMAT
    queue: str | None = None
    key: str | None = None
    attempts_max: int | None = None
    expires: float | None = None
    given: tuple[Row, ...] = ()

    def length(self, branch: str) -> int:
        """How many entries a branch has."""
        return self.branches.get(branch, 0) if branch != ROOT else self.entries - sum(self.branches.values())

    def grown(self, branches: Iterable[str]) -> "TurnRef":
        """The turn with one entry more for each of these; what it was given is committed with them."""
        lengths, entries = dict(self.branches), self.entries
        for branch in branches:
            entries += 1
            if branch != ROOT:
                lengths[branch] = lengths.get(branch, 0) + 1
        return replace(self, recorded=True, entries=entries, branches=lengths, given=())

    def is_at(self, other: "TurnRef") -> bool:
        """Whether both are the same attempt of a turn, as far along."""
        mine, others = ((it.turn_id, it.epoch, it.attempts, it.entries) for it in (self, other))
        return mine == others

    @property
    def journal_bytes_max(self) -> int:
        """How much its journal may hold: no more than a host can be handed."""
        limits = self.pinned.get("limits") or {}
        return min(int(limits.get("journal_bytes_max", 1_048_576)), JOURNAL_BYTES_MAX)

    @property
    def address(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def raises(self) -> bool:
        """Whether its code hears at once of an effect that would be held, and does not wait for an operator."""
        return self.pinned.get("on_hold") == "raise"

    @property
    def within(self) -> str:
        """The chain that its use is counted for; empty where there is none."""
        return self.chain.chain_id if self.chain is not None else ""


class Passed(NamedTuple):
    """A message for the inbox of an agent, and where its turn waits for the answer, if it does."""

    to: tuple[str, str]
    message_id: str
    body: str
    asked_at: Place | None
    alone: bool  # whether nothing stands in the way of its being handled at once


@dataclass(slots=True)
class Aftermath:
    """Whom to ring once the unit is committed."""

    agents: set[tuple[str, str]] = field(default_factory=set)
    published: list[tuple[str, str, str]] = field(default_factory=list)  # by namespace, channel and message
    asked: list[str] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)
    members: set[tuple[str, str]] = field(default_factory=set)  # channels that somebody joined or left
    queues: set[tuple[str, str]] = field(default_factory=set)  # of which a member has finished a message; and who
    passed: list[Passed] = field(default_factory=list)  # the messages to agents that the unit sends
    replied: str | None = None  # the envelope that answers an agent
    operators: list[str] = field(default_factory=list)  # of answers, those that operators wait for
    due_at: float | None = None
    open_until: float = 0.0

    def due(self, at: float) -> None:
        self.due_at = at if self.due_at is None else min(self.due_at, at)

    def awaits(self, until: float) -> None:
        """An await that ends by then."""
        self.due(until)
        self.open_until = max(self.open_until, until)


class Outside(NamedTuple):
    """What a segment meets beyond its agent: the next generation of names that its spawns take over from the deleted,
    what of other namespaces is open to it, by the kind of entry and the address, with the invitation that opens it, and
    which channels, by namespace and name, were not there when it first named them. `room` is how many messages an inbox
    may hold that what it publishes still goes to at once; None, and it is delivered afterwards. `trusts` is how far
    connections are trusted that what it sends came in over, by their names."""

    generations: Mapping[str, int] = {}
    opened: Mapping[tuple[str, str], str] = {}
    absent: frozenset[tuple[str, str]] = frozenset()
    room: int | None = None
    trusts: Mapping[str, str] = {}


Made = tuple[list[Row], Aftermath]


def at_time(seconds: float) -> str:
    return rfc3339(datetime.fromtimestamp(seconds, UTC))


class Carried(TypedDict):
    """What of a turn's message goes along with an effect; empty where it says nothing."""

    traceparent: str
    taint: str


def carried(turn: TurnRef | None) -> Carried:
    """That of a turn, if there is one."""
    traceparent, taint = (None, None) if turn is None else (turn.traceparent, turn.taint)
    return {"traceparent": traceparent or "", "taint": taint or ""}


def split(address: str) -> tuple[str, str]:
    namespace, _, name = address.partition("/")
    return namespace, name


def envelope(turn: TurnRef, message_id: str, kind: str, subject: str, data: Any, now: float, **more: Any) -> str:
    """A CloudEvent from the turn's agent, as JSON."""
    body = {
        "specversion": "1.0",
        "id": message_id,
        "source": f"/{turn.namespace}/agents/{turn.name}",
        "type": kind,
        "subject": subject,
        "time": at_time(now),
        "datacontenttype": "application/json",
        "data": data,
        "causationid": turn.message_id,
        "onbehalfof": turn.onbehalfof,
        "traceparent": turn.traceparent,
        "intentid": turn.intentid,
        "scope": turn.scope,
        "taint": turn.taint,
        "chainid": turn.chain.chain_id if turn.chain is not None else None,
        "deadline": at_time(turn.deadline) if turn.deadline is not None else None,  # a question's own is no later
        **more,
    }
    return orjson.dumps({name: value for name, value in body.items() if value is not None or name == "data"}).decode()


def message_id(turn: TurnRef, entry: Entry) -> str:
    """The id of the message, await or child that an entry makes."""
    return short_id("msg", turn.turn_id, entry.branch, entry.position, near=turn.turn_id)


def reach(turn: TurnRef, address: str, *, opened: bool = False) -> tuple[str, str]:
    """Where an address leads to from here: agents reach their own namespace, and what an invitation opens to them;
    beyond that there is nobody."""
    namespace, name = split(address)
    return (namespace, name) if opened or namespace == turn.namespace else (turn.namespace, NOBODY)
