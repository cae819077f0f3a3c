"""Ports: the Protocols by which siblings meet. Wiring binds them."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from pydantic import BaseModel

from schemas.agent import Grant
from schemas.plan import Probe


class Effector(Protocol):
    """The code that performs one protocol's effects.

    `name` is `protocol.verb`. `repeats_safely` says that doing it twice is doing it once.
    `execute` gets validated arguments and an idempotency key, answers a JSON value, and raises
    `schemas.problem.Refusal` when it fails. It must not block the loop.
    """

    name: str
    repeats_safely: bool
    timeout_s: float
    arguments: type[BaseModel]

    async def execute(self, arguments: BaseModel, idempotency_key: str) -> Any: ...


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
