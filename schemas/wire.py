"""Frames between the gate and its peers (hosts, placer, plane): tagged arrays of msgpack.

A frame is a little-endian u32 length and one of these. Payloads (`state`, `body`, `message`,
`result`) are JSON as opaque bytes: the gate forwards them and stores them without parsing, unless
the guard must look inside. A peer is told by its first frame; hosts hold nothing but their id.
"""

import math

import msgspec

from schemas.frames import (
    Control,
    Done,
    EndProcess,
    Frame,
    Home,
    HostGone,
    HostsWanted,
    Moved,
    NodesSeen,
    PlacerHello,
    PlaneHello,
    Post,
    Publish,
    PublishChannel,
    RelayHello,
    Shutdown,
    TaskBegin,
    TaskEnded,
    TaskStarted,
    TasksWanted,
    Through,
    Write,
)
from schemas.workspace import Folder, Saved

# Host -> gate

REPLAY = "replay/"


class Hello(Frame, frozen=True):
    """The first frame of a host's turn connection. `python` is its version, as 3.11."""

    host_id: str
    pid: int
    pid_started: float
    node: str
    namespace: str = ""
    digest: str = ""
    reserved: str = ""
    python: str = ""


class LeaseHello(Frame, frozen=True):
    """The first frame of a host's lease connection, which a thread of its own keeps."""

    host_id: str


class Lease(Frame, frozen=True):
    """Renews the lease; `loop_lag_ms` is how long the turn loop has not answered its own thread.

    `holding` is the turn that holds the loop at this moment, and has done so for `held_ms`; `REPLAY` stands before the
    id of one that is run again in the background.
    """

    host_id: str
    loop_lag_ms: float
    running: int
    holding: str = ""
    held_ms: float = 0.0


class Entry(Frame, frozen=True):
    """One internal effect, buffered until the segment commits. Positions of a branch count up from 0.

    `body` is a JSON object; names are complete ("namespace/name"), keys sorted. By kind:
    send {to, data, key, budget?}, publish {channel, data, key}, request and ask {to, data, deadline_s, budget?},
    sleep {seconds}, question {question, choices, deadline_s} (null: for ever), gather {members, needs},
    timer {name, after_s, every_s, data, cron?, zone?, missed?},
    timer_cancel {name},
    spawn {name, entrypoint, config, purpose, grants, budget?, scope?} (null: as the parent has it; the child lives in
    the parent's namespace),
    conclude {text, because, seen, alternatives, confidence}: the references of what it leans on,
    poll {connection, since, fault?, reason?, detail?}: a route's poll fails, or without a fault works again,
    continue {data}: the last entry of a Commit, whose message stays in its place, with this data.
    order {came}: places `[branch, position]` in the order in which their answers reached the branches.
    A gathering stands right behind its members, which say its position as `group`;
    `needs` is how many answers are enough. An `effect` is journaled as {effect, connection, arguments, purpose}.
    `state` is a hash of the agent's state when its handler came to wait there; empty where it does not, or unknown.
    """

    branch: str
    position: int
    kind: str
    body: bytes
    state: str = ""


class Ask(Frame, frozen=True):
    """An external effect: asked of the gate at once, and answered by a Receipt.

    `entries` is what was buffered before it; they commit together with its intent, and so a segment ends here.
    Asked again, at the same position, when the journal handed back holds an intent without a receipt.
    `state` as in Entry.
    """

    turn_id: str
    epoch: int
    branch: str
    position: int
    effect: str
    connection: str
    arguments: bytes
    purpose: str
    entries: list[Entry]
    state: str = ""


class Park(Frame, frozen=True):
    """A durable await: `entries` holds what was buffered, the last one being the await itself.

    Empty when a replay ended at an await that is recorded and still open. `cpu_ns`, here and in Commit
    and Failed, is what was spent since the last of these frames of the turn: add it up. `waits` are the awaits,
    and held effects, that branches wait for. A turn with branches says this whenever all of them wait, also for
    effects: it goes on meanwhile, unless nothing is on its way. `heard` counts the answers that it got so far.
    """

    turn_id: str
    epoch: int
    entries: list[Entry]
    cpu_ns: int
    waits: list[tuple[str, int]] = msgspec.field(default_factory=list)
    heard: int = 0


class Commit(Frame, frozen=True):
    """The end of a turn: new state, with the version of its shape, what is still buffered, the answer to who asked.

    Of a workspace, `files` are those that are new or other than before, `gone` the paths that are no more.
    """

    turn_id: str
    epoch: int
    version: int
    state: bytes
    state_digest: str
    entries: list[Entry]
    reply: bytes
    cpu_ns: int
    state_version: int = 1
    files: list[Saved] = msgspec.field(default_factory=list)
    gone: list[str] = msgspec.field(default_factory=list)


class Failed(Frame, frozen=True):
    """The handler raised, or the code did not load. `problem` is a Problem as JSON."""

    turn_id: str
    epoch: int
    problem: bytes
    retry: bool
    cpu_ns: int


class CodeWanted(Frame, frozen=True):
    digest: str


class Released(Frame, frozen=True):
    """The host forgot the agent."""

    agent: str
    epoch: int


class Diverged(Frame, frozen=True):
    """A turn that has committed did not come to the same when it was run again in the background.

    `first` says how it differed first, as `schemas.divergence` names it; `problem` is a Problem as JSON.
    """

    turn_id: str
    first: str
    problem: bytes


# Gate -> host


class Welcome(Frame, frozen=True):
    """Answers Hello: how often to renew, how long the lease runs, how large a state may be; more in Specialise."""

    lease_s: float
    renew_s: float
    state_bytes_max: int = 1_048_576
    replay_one_in: int = 0


class Specialise(Frame, frozen=True):
    """From now on this host serves one namespace and one code digest, for good.

    One turn in `replay_one_in` of it is run again in the background; 0: none. Said again, that alone may be another.
    """

    namespace: str
    digest: str
    replay_one_in: int = 0


class CodeFiles(Frame, frozen=True):
    """The files of a digest; `files` is JSON, path -> text. Empty when there is no such code."""

    digest: str
    files: bytes


class Recorded(Frame, frozen=True):
    """A journal entry handed back for replay; `outcome` and `result` as in Receipt and Resolved.

    Both are empty for buffered kinds, for an intent without a receipt, and while an await is open. `state` as in Entry.
    """

    branch: str
    position: int
    kind: str
    body: bytes
    outcome: str
    result: bytes
    at: float
    state: str = ""


class Run(Frame, frozen=True):
    """Run one turn. `state` is empty when the host already holds `version`, and at version 0.

    `message` is an Envelope, `journal` is in the order of positions, `started_at` is the turn's first
    start (the same in every attempt). Trigger `start` at version 0 runs `on_start`; at a later version
    it loads the code and validates the state. A timer's envelope has the timer's name as `subject`.
    `state_version` is the one that the state was stored under; at 0 it is the code's own. The turn may be active for
    `turn_s_left`, where that is less than its limit of `turn_s_max`.
    """

    agent: str
    namespace: str
    name: str
    epoch: int
    version: int
    entrypoint: str
    config: bytes
    state: bytes
    turn_id: str
    trigger: str
    message: bytes
    started_at: float
    journal: list[Recorded]
    effects_max: int
    journal_bytes_max: int
    turn_s_max: float
    state_version: int = 0
    workspace: Folder | None = None
    turn_s_left: float = math.inf


class Receipt(Frame, frozen=True):
    """What came of an external effect: outcome succeeded | failed | in_doubt.

    `result` is the effector's JSON value when it succeeded, else a Problem (a denial is `failed`). Outcome `held`
    says that it lasts, or that one of a branch waits for an operator: its turn waits as at an await; what comes of it
    comes as Resolved, or to a replay.
    """

    turn_id: str
    branch: str
    position: int
    outcome: str
    result: bytes
    at: float


class Resolved(Frame, frozen=True):
    """An await got its answer: outcome answered | failed | timeout | slept | gathered.

    `result`: the answer as an Envelope; a Problem when failed or timed out; `null` when slept. When gathered, a
    list of what each member came to, `[position, outcome, result, at]`; in a journal it is `null`. A turn that rested
    may be active for `turn_s_left` from now on, if not for less by its host's own measure.
    """

    turn_id: str
    branch: str
    position: int
    outcome: str
    result: bytes
    at: float
    turn_s_left: float = math.inf


class Evict(Frame, frozen=True):
    """Forget the agent: drop its coroutine and its state. `abort` also ends a running turn."""

    agent: str
    epoch: int
    abort: bool


class Bye(Frame, frozen=True):
    """The host shall end itself."""

    reason: str


FromHost = (
    Hello
    | LeaseHello
    | Lease
    | Ask
    | Park
    | Commit
    | Failed
    | CodeWanted
    | Released
    | Diverged
    | PlacerHello
    | HostGone
    | NodesSeen
    | TaskStarted
    | TaskEnded
    | PlaneHello
    | Write
    | Publish
    | PublishChannel
    | Post
    | Control
    | Shutdown
)
ToHost = Welcome | Specialise | CodeFiles | Run | Receipt | Resolved | Evict | Bye
FromRelay = RelayHello | Through
ToRelay = EndProcess
ToPlacer = HostsWanted | Home | TaskBegin | TasksWanted | Bye
ToPlane = Done | Moved
