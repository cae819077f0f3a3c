"""The base of all frames, and those between the gate and its placer and planes. See `wire`."""

from typing import Any

import msgspec

from schemas.posting import Placed

FRAME_BYTES_MAX = 32 * 1024 * 1024
JOURNAL_BYTES_MAX = 24 * 1024 * 1024  # of a turn, so that it still goes to a host, with a message and a state


class Frame(msgspec.Struct, array_like=True, tag=True, frozen=True, gc=False):
    """The base of all frames."""


# Placer <-> gate


class PlacerHello(Frame, frozen=True):
    """The process that asks Ray for hosts and tasks; `runner` is its own name, no other's before or after it."""

    pid: int
    node: str
    dashboard: str
    runner: str = ""


class Apart(msgspec.Struct, frozen=True):
    """A host that is one agent's own, as JSON: whose it is, what Ray keeps for it, what its process is told."""

    agent: str
    address: str
    resources: dict[str, Any] = {}
    environment: dict[str, str] = {}
    confined: bool = False


class HostsWanted(Frame, frozen=True):
    """Which hosts shall be there; what is not named shall go.

    By the host's id: `reserved`, an `Apart` as JSON; `nodes`, Ray's id of the node it shall be on, where that is not
    the gate's own; `uids`, as whom a confined one runs, and nobody else is taken for it. Where a reserved one goes is
    Ray's choice, but for the nodes to `avoid`; a confined one is on the gate's node.
    """

    host_ids: list[str]
    reserved: dict[str, str] = {}
    nodes: dict[str, str] = {}
    uids: dict[str, int] = {}
    avoid: list[str] = []


class HostGone(Frame, frozen=True):
    """Ray says that the actor is dead."""

    host_id: str
    reason: str


class NodesSeen(Frame, frozen=True):
    """What Ray says of its nodes, as JSON: a list of {node, ray_node_id, here, alive, resources, labels}.

    `node` is how it calls itself, which others may do, too; how it is called is the gate's.
    """

    nodes: bytes


# Relay <-> gate


class Home(Frame, frozen=True):
    """Where the relays of other nodes reach the gate: TLS, by this certificate and no other, with this key."""

    host: str
    port: int
    key: str
    certificate: str


class RelayHello(Frame, frozen=True):
    """The first frame of a relay's own connection; `node_id` is Ray's."""

    key: str
    node_id: str
    pid: int


class Through(Frame, frozen=True):
    """The first frame of a connection that a relay passes on: which process it is of, as that node's kernel says."""

    key: str
    node_id: str
    pid: int
    pid_started: float


class EndProcess(Frame, frozen=True):
    """Kill a process that has connected to the relay, if it is still that one."""

    pid: int
    pid_started: float


# Tasks


class TaskBegin(Frame, frozen=True):
    """A task of `turn.compute`, to be begun once: `key` is its await and its attempt. Said again, it changes nothing.

    `name` is that of its agent; `files` are those of its code, as in `CodeFiles`; `arguments` a ComputeRun as JSON. It
    goes where Ray finds what it needs, but for the nodes to `avoid`.
    """

    key: str
    name: str
    digest: str
    files: bytes
    arguments: bytes
    avoid: list[str] = []


class TasksWanted(Frame, frozen=True):
    """Which tasks shall run; what is not named shall be ended, and what came of it forgotten."""

    keys: list[str]


class TaskStarted(Frame, frozen=True):
    """A task has what it needs, and has run for so long; said again to a gate that is new."""

    key: str
    active_s: float = 0.0


class TaskEnded(Frame, frozen=True):
    """What came of a task: outcome succeeded | failed | lost.

    `result` is JSON when it succeeded, else a Problem; of a lost one, which nobody can say more of, why as a string,
    and `active_s` is then how long it ran until that was known.
    """

    key: str
    outcome: str
    result: bytes
    cpu_s: float = 0.0
    active_s: float = 0.0


# Plane <-> gate


class PlaneHello(Frame, frozen=True):
    """The first frame of a plane's connection; `key` proves it may write."""

    pid: int
    key: str


class Statement(Frame, frozen=True):
    """One SQL statement of a unit, with the count of rows that it must touch (-1: any)."""

    sql: str
    params: list[Any]
    expect: int


class Write(Frame, frozen=True):
    """All statements in one transaction, or none."""

    call: int
    statements: list[Statement]


class Opened(msgspec.Struct, frozen=True):
    """What a principal says of the chain that its message begins: the most of each meter, and what it is for."""

    limits: dict[str, float] = {}
    intent: str | None = None


class Publish(Frame, frozen=True):
    """A message for an agent's inbox. `ask` makes an await without an agent, named by the message id.

    `chain` opens a chain of the same name, as an `Opened` in JSON; it is empty where nothing is said of one.
    """

    call: int
    namespace: str
    name: str
    message_id: str
    body: bytes
    ask_until: float
    principal: str
    chain: bytes = b""
    placed: Placed = Placed()


class PublishChannel(Frame, frozen=True):
    """A message for a channel. Where that is not there it is made, under the uid `first_use`, unless that is empty.

    From another namespace it is taken only as long as the `invitation` stands.
    """

    call: int
    namespace: str
    name: str
    message_id: str
    body: bytes
    placed: Placed
    principal: str = ""
    first_use: str = ""
    invitation: str = ""


class Post(Frame, frozen=True):
    """What came to a connection over HTTP, from somebody who holds no token; header names are lower-case."""

    call: int
    namespace: str
    name: str
    headers: dict[str, str]
    body: bytes


class Control(Frame, frozen=True):
    """verb: suspend | wake | stop | reload | remove | look | settle | migrate, of one agent by uid; deliver, of one
    channel; drain, of one host; nodes; drain_node, of one node; offers, of one connection by namespace and name;
    cancelled, of the agent that an operator's question went to.

    `argument` is JSON. For suspend, wake and stop it is `{"principal": name}`: an operator asked, and the event
    `agent.suspended | woken | stopped` is written in the unit of the record, when the record changed at all.
    `look` answers `{"why_awake": text or null}` beside `ok`. `deliver` brings to the members' inboxes what they
    have not got yet (somebody joined from the beginning). `settle` says what came of an effect that is held,
    and `answer` what a person says to a question.
    """

    call: int
    verb: str
    agent: str
    argument: bytes


class Done(Frame, frozen=True):
    """Answers a call of the plane: outcome ok | conflict | refused; `body` is JSON."""

    call: int
    outcome: str
    body: bytes


class Moved(Frame, frozen=True):
    """Something was committed; readers of the feedback log may look. `awaits` were resolved.

    `trouble` says in words what keeps the gate from writing; empty when nothing does.
    """

    awaits: list[str]
    trouble: str = ""


class Shutdown(Frame, frozen=True):
    """End in good order."""
