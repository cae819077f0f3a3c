"""Ports: the Protocols by which siblings meet. Wiring binds them."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from pydantic import BaseModel

from schemas.agent import Grant
from schemas.connection import ConnectionSpec
from schemas.plan import Probe


@dataclass(frozen=True)
class Link:
    """A connection, as an effector gets it: read and resolved right before sending. Its repr shows no secret."""

    name: str
    spec: ConnectionSpec
    secret: str = field(default="", repr=False)


@dataclass(frozen=True)
class Used:
    """What an effector may answer in place of a result: the result, and what it took, as `{"tokens_in": 12}`."""

    result: Any
    meters: dict[str, float]


@dataclass(frozen=True)
class EffectCall:
    """What an effector is given beside its arguments: the idempotency key, the connection if it needs one, who
    is told of its result while that comes, if anybody is, who counts what it took, also where it fails then, and
    the agent that asks."""

    key: str
    link: Link | None = None
    tell: Callable[[str], None] | None = None
    count: Callable[[dict[str, float]], None] = lambda _: None
    namespace: str = ""
    agent: str = ""


class Doubt(Exception):  # noqa: N818 - a state: neither success nor failure
    """Raised by an effector that sent something and does not know what came of it."""


class Unreached(Exception):  # noqa: N818 - a state of the far side
    """Raised by an effector that could not send anything, for now: trying again is safe."""


class Effector(Protocol):
    """The code that performs one protocol's effects.

    `name` is `protocol.verb`; `protocol` is that of the connection it needs, None if it takes none.
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
    arguments: type[BaseModel]

    def repeats_for_s(self, arguments: BaseModel, spec: ConnectionSpec | None) -> float: ...

    async def ready(self) -> None: ...

    async def execute(self, arguments: BaseModel, call: EffectCall) -> Any: ...


@runtime_checkable
class Costing(Protocol):
    """An effector that says beforehand what an effect may use at most, beside itself and its bytes."""

    def most(self, arguments: BaseModel, spec: ConnectionSpec | None) -> dict[str, float]: ...


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
    """Rings after a commit that readers of the feedback log may care about. Only a hint."""

    def ring(self) -> None: ...

    async def wait(self, timeout_s: float) -> None: ...


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
    ) -> dict[str, Any]: ...

    async def publish_channel(
        self, namespace: str, name: str, message_id: str, body: bytes, key: str
    ) -> dict[str, Any]: ...

    async def control(self, verb: str, agent: str, argument: dict[str, Any]) -> dict[str, Any]: ...

    async def answered(self, await_id: str, timeout_s: float) -> None: ...


class HostControl(Protocol):
    """Starts and ends hosts; makes no decision."""

    def want(self, host_ids: list[str]) -> None: ...


Clock = Callable[[], float]
Handler = Callable[..., Awaitable[BaseModel]]
