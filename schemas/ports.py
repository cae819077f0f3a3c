"""Ports: the Protocols by which siblings meet. Wiring binds them."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from pydantic import BaseModel, RootModel

from schemas.agent import Grant
from schemas.endpoint import ConnectionSpec
from schemas.plan import Probe
from schemas.posting import PLAIN, Placed

ARGUMENTS_BYTES_MAX = 65_536  # of the JSON Schema of one effect's arguments
Role = Literal["target", "control", "quantity", "payload"]  # of an argument: where to, how, how much, what


class Given(RootModel[dict[str, Any]]):
    """Arguments that were held against a JSON Schema, as they are."""


@dataclass(frozen=True)
class Link:
    """A connection, as an effector gets it: read and resolved right before sending. Its repr shows no secret.

    `uid` and `generation` name what was declared: a changed spec has another generation, a new connection of the
    same name another uid. A family resolves an effect without the secret, which is empty then.
    """

    name: str
    spec: ConnectionSpec
    secret: str = field(default="", repr=False)
    namespace: str = ""
    uid: str = ""
    generation: int = 0


@dataclass(frozen=True)
class Used:
    """What an effector may answer in place of a result: the result, and what it took, as `{"tokens_in": 12}`."""

    result: Any
    meters: dict[str, float]


@dataclass(frozen=True)
class Previewed:
    """What an effect would touch, as `{"rows": 3}`, and how much of each the connection allows (None: any)."""

    magnitudes: dict[str, int]
    most: dict[str, int | None] = field(default_factory=dict)


@dataclass(frozen=True)
class EffectCall:
    """What an effector is given beside its arguments: the idempotency key, the connection if it needs one, who
    is told of its result while that comes, if anybody is, and who counts what it took, also where it fails then;
    `traceparent` is the W3C trace context that goes along with what is sent, empty where there is none, `namespace`
    and `agent` who asks, and `judged` the magnitudes that it was judged by, if it was previewed. `taint` is the label
    of the turn's message, which an event that is sent has, too; empty where there is none."""

    key: str
    link: Link | None = None
    tell: Callable[[str], None] | None = None
    count: Callable[[dict[str, float]], None] = lambda _: None
    traceparent: str = ""
    taint: str = ""
    namespace: str = ""
    agent: str = ""
    judged: dict[str, int] = field(default_factory=dict)
    sees: Callable[[str], Link | None] = lambda _: None


class Doubt(Exception):  # noqa: N818 - a state: neither success nor failure
    """Raised by an effector that sent something and does not know what came of it."""


class Unreached(Exception):  # noqa: N818 - a state of the far side
    """Raised by an effector that could not send anything, for now: trying again is safe."""


class Effector(Protocol):
    """The code that performs one protocol's effects.

    `name` is `protocol.verb`; `protocol` is that of the connection it needs, None if it takes none.
    `arguments` is their model, or a JSON Schema of an object: then `execute` gets them in a `Given`.
    `repeats_for_s` says for how long after its intent an effect may be sent again under its key: infinitely
    when doing it twice is doing it once, 0 when the far side promises nothing.
    `reads_only` says that it changes nothing anywhere: what breaks has failed, and no doubt is held.
    `ready` loads what it needs, before any timeout begins.
    `execute` gets validated arguments and answers a JSON value, or one in a `Used`. It raises
    `schemas.problem.Refusal` when it failed, `Unreached` when nothing was sent, and `Doubt` when nobody
    knows. Whatever else it raises is a doubt, too. It must not block the loop.
    """

    name: str
    protocol: str | None
    timeout_s: float
    reads_only: bool

    @property
    def arguments(self) -> type[BaseModel] | Mapping[str, Any]: ...

    def repeats_for_s(self, arguments: BaseModel, spec: ConnectionSpec | None) -> float: ...

    async def ready(self) -> None: ...

    async def execute(self, arguments: BaseModel, call: EffectCall) -> Any: ...


class Family(Protocol):
    """Effects of one protocol whose verbs, arguments and promises the connection says: `name` is `protocol.*`.

    `resolve` answers the effector of one effect over one connection, at once and without I/O; it raises
    `schemas.problem.Refusal` (UNKNOWN_EFFECT) when there is none of that name. An effector of that very name
    goes before its family.
    """

    name: str
    protocol: str

    def resolve(self, effect: str, link: Link) -> Effector: ...


@runtime_checkable
class Roles(Protocol):
    """An effector that says what its arguments are for (rule G3), by their names; the others are `payload`."""

    @property
    def roles(self) -> Mapping[str, Role]: ...


class Pins(Protocol):
    """What the gate keeps of what far sides offer (`schemas.offers`), for families whose effects that is.

    `pin` answers what is kept of one tool, at once; `seen` keeps what was seen, committed when it answers: it raises
    `Unreached` when it can not be. `named` is a connection, without its secret; `link` opens it.
    """

    commands: Sequence[Sequence[str]]
    variables: Sequence[str]

    def pin(self, link: Link, tool: str) -> Any: ...

    async def seen(self, link: Link, offered: Mapping[str, Any]) -> None: ...

    def named(self, namespace: str, name: str) -> Link | None: ...

    def link(self, declared: Link) -> Link: ...

    def generation(self, uid: str) -> int | None: ...


@runtime_checkable
class Bound(Protocol):
    """A performer that is given what its gate keeps of far sides, before anything else."""

    def bind(self, pins: Pins) -> None: ...


@runtime_checkable
class Pinning(Protocol):
    """A family whose effects the far side says: what it offers is pinned, and refused until it is accepted.

    `ask` looks what is offered now, and has it kept; it raises `Unreached` or a Refusal when it can not. `keep` is
    called now and then, to let go of what nobody uses or what has changed.
    """

    protocol: str

    def bind(self, pins: Pins) -> None: ...

    async def ask(self, link: Link) -> None: ...

    async def keep(self) -> None: ...


@runtime_checkable
class Listing(Protocol):
    """A family that names all its effects over a connection, as they are declared there; those too that it refuses."""

    def effects(self, link: Link) -> list[str]: ...


@runtime_checkable
class Described(Protocol):
    """An effector that says what it does, in a few words."""

    @property
    def description(self) -> str: ...


@runtime_checkable
class Offered(Protocol):
    """An effector whose arguments a model is told by another schema, which says the same."""

    @property
    def offered(self) -> Mapping[str, Any]: ...


@runtime_checkable
class Costing(Protocol):
    """An effector that says beforehand what an effect may use at most, beside itself and its bytes."""

    def most(self, arguments: BaseModel, spec: ConnectionSpec | None) -> dict[str, float]: ...


@runtime_checkable
class Preview(Protocol):
    """An effector that says beforehand what an effect would touch; then it passes no more than was judged.

    It raises what `execute` does; what can not be counted is not sent.
    """

    async def preview(self, arguments: BaseModel, link: Link | None) -> Previewed: ...


@runtime_checkable
class Lasting(Protocol):
    """An effector whose effects are done elsewhere, for as long as they take: their turn waits as at an await."""

    def lasts_s(self, arguments: BaseModel) -> float:
        """For how long it is waited for."""

    def target(self, arguments: BaseModel) -> str:
        """What is waited for, in words."""


@runtime_checkable
class Telling(Protocol):
    """An effector whose result comes in parts; `told_to` is the channel that they go to, if they go anywhere."""

    def told_to(self, arguments: BaseModel) -> str | None: ...


Parse = Callable[[bytes], Any]  # JSON, taken strictly; raises `schemas.problem.Refusal`


@dataclass(frozen=True)
class Posted:
    """What came to a connection over HTTP: its headers, by lower-case names, and its body as it is."""

    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Arrival:
    """What a connection lets in: an event for a channel of its namespace, once for each `unique`.

    It becomes an envelope from the connection, tainted as untrusted; without a trace context it begins a trace.
    """

    channel: str
    unique: str
    data: Any
    type: str
    origin: str | None = None
    partitionkey: str | None = None
    traceparent: str | None = None


class Listener(Protocol):
    """Lets in what is posted to connections of its protocol, at `/hooks/{namespace}/{connection}`, without a token.

    `listens` says whether a connection takes any. `hears` first makes sure who posted, by the connection's secret,
    and raises UNAUTHENTICATED otherwise; at once, and without I/O. Of several that come together all are taken or none.
    """

    protocol: str

    def listens(self, link: Link) -> bool: ...

    def hears(self, link: Link, posted: Posted, parse: Parse) -> Arrival | list[Arrival]: ...


class EffectKnown(NamedTuple):
    """What is known of an effect before it is asked: the protocol of its connection (None: it takes none), the JSON
    Schema of its arguments (None: only the connection knows), and whether it may be sent again over a connection of
    that spec (None: nobody knows)."""

    protocol: str | None
    schema: dict[str, Any] | None
    repeats: Callable[[dict[str, Any] | None], bool | None]


class Tried(NamedTuple):
    """What came of a sample: whether it passed, what was made of it; or why, in words, no expression takes it."""

    passed: bool
    made: Any
    unfit: str


class Routing(Protocol):
    """What the plane knows of filters, transforms and effects.

    Faults are words, None where there is none. `fields_read` answers all fields that a transform may read, `*` where it
    may read any. `tried` runs samples through filter and transform, apart from this process; in bounded time.
    """

    def filter_fault(self, text: str) -> str | None: ...

    def accept_fault(self, text: str) -> str | None: ...

    def transform_fault(self, text: str) -> str | None: ...

    async def tried(
        self, filter_: str | None, transform: str | None, samples: Sequence[Any], envelope: Mapping[str, Any]
    ) -> "list[Tried]": ...

    def fields_read(self, text: str) -> set[str]: ...

    def effect(self, name: str) -> EffectKnown | None: ...


class Guard(Protocol):
    """Judges one effect from its declaration and its agent's grants, without I/O."""

    def __call__(self, effect: str, connection: str | None, grants: tuple[Grant, ...]) -> Any: ...


class Embed(Protocol):
    """Texts as vectors of meaning: little-endian float32, of unit length. It must not block the loop."""

    async def embed(self, texts: Sequence[str]) -> list[bytes]: ...

    def nearness(self, to: bytes, vectors: Sequence[bytes]) -> list[float]: ...


class ProbeRunner(Protocol):
    """Runs a probe as the plane itself; answers the operation's output as JSON, or None when it is absent."""

    async def __call__(self, probe: Probe) -> dict[str, Any] | None: ...


class Doorbell(Protocol):
    """Rings after a commit that readers of the feedback log may care about. Only a hint. `rung` is how often."""

    rung: int

    def ring(self) -> None: ...

    async def wait(self, timeout_s: float, since: int | None = None) -> None: ...


class GatePort(Protocol):
    """What the plane asks of its home gate. Refusals come as `schemas.problem.Refusal`.

    `write` answers False on a conflict (a statement touched another count of rows than it must);
    then nothing was changed.
    """

    async def write(self, statements: list[tuple[str, list[Any], int]]) -> bool: ...

    async def publish(
        self,
        namespace: str,
        name: str,
        message_id: str,
        body: bytes,
        ask_until: float,
        principal: str,
        chain: bytes = b"",
        placed: Placed = PLAIN,
    ) -> dict[str, Any]: ...

    async def publish_channel(
        self,
        namespace: str,
        name: str,
        message_id: str,
        body: bytes,
        placed: Placed = PLAIN,
        principal: str = "",
        first_use: str = "",
        invitation: str = "",
    ) -> dict[str, Any]: ...

    async def control(self, verb: str, agent: str, argument: dict[str, Any]) -> dict[str, Any]: ...

    async def answered(self, await_id: str, timeout_s: float) -> None: ...


class HostControl(Protocol):
    """Starts and ends hosts; makes no decision."""

    def want(self, host_ids: list[str]) -> None: ...


Clock = Callable[[], float]
Handler = Callable[..., Awaitable[BaseModel]]
