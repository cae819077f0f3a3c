"""Ports: the Protocols by which siblings meet. Wiring binds them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

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
class EffectCall:
    """What an effector is given beside its arguments: the idempotency key, and the connection if it needs one."""

    key: str
    link: Link | None = None


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
    `execute` gets validated arguments, answers a JSON value, raises `schemas.problem.Refusal` when it
    failed, `Unreached` when nothing was sent, and `Doubt` when nobody knows. Whatever else it raises is a
    doubt, too. It must not block the loop.
    """

    name: str
    protocol: str | None
    timeout_s: float
    reads_only: bool
    arguments: type[BaseModel]

    def repeats_for_s(self, arguments: BaseModel, spec: ConnectionSpec | None) -> float: ...

    async def ready(self) -> None: ...

    async def execute(self, arguments: BaseModel, call: EffectCall) -> Any: ...


class Guard(Protocol):
    """Judges one effect from its declaration and its agent's grants, without I/O."""

    def __call__(self, effect: str, connection: str | None, grants: tuple[Grant, ...]) -> Any: ...


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
        self, namespace: str, name: str, message_id: str, body: bytes, ask_until: float, principal: str
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
