"""`mcp.*`: the tools of a server of the Model Context Protocol, as effects over a connection of protocol `mcp`.

Which tools there are, the server says; which may be used, and what their arguments are for, an operator has said of
each, by a digest of what the server said of it. A tool that has changed since is refused until that is accepted.
Nothing that a server promises of its tools is believed: what repeats safely, the connection says. The client is loaded
with the first use.
"""

import asyncio
from collections.abc import Mapping
from math import inf
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from controlplane.resources.problems import problem, refuse
from schemas.endpoint import ConnectionSpec
from schemas.mcp_connection import McpConnection
from schemas.offers import Pin
from schemas.ports import EffectCall, Given, Link, Pins, Role
from schemas.problem import Next, Problem, Refusal
from schemas.protocols import Declaration

if TYPE_CHECKING:
    from controlplane.protocols.mcp_client import McpClient

PREFIX = "mcp."
ANYTHING: Mapping[str, Any] = {"type": "object"}


class McpTool:
    """One tool over one connection; without a pin nothing is known of it yet."""

    protocol: str | None = "mcp"
    timeout_s = 30.0
    reads_only = False

    def __init__(self, family: "McpFamily", effect: str, pin: Pin | None) -> None:
        self.name = effect
        self.tool = effect.removeprefix(PREFIX)
        self._family = family
        self._pin = pin

    @property
    def arguments(self) -> type[BaseModel] | Mapping[str, Any]:
        return ANYTHING if self._pin is None else self._pin.seen.input_schema

    @property
    def roles(self) -> Mapping[str, Role]:
        return {} if self._pin is None else self._pin.roles

    @property
    def description(self) -> str:
        return "" if self._pin is None else self._pin.seen.description

    def repeats_for_s(self, arguments: BaseModel, spec: ConnectionSpec | None) -> float:
        """For ever, if the connection says so."""
        return inf if isinstance(spec, McpConnection) and self.tool in spec.options.repeats_safely else 0.0

    async def ready(self) -> None:
        await self._family.ready()

    async def execute(self, arguments: BaseModel, call: EffectCall) -> Any:
        """Call it, once it is known to be what was accepted, and the arguments to be what it takes."""
        assert isinstance(arguments, Given)
        client = await self._family.ready()
        return await client.call(self.name, self.tool, arguments.root, call)


class McpFamily:
    """The tools of all servers."""

    name = "mcp.*"
    protocol = "mcp"

    def __init__(self, fault_of: Any) -> None:
        self._fault_of = fault_of
        self._pins: Pins | None = None
        self._client: McpClient | None = None

    def bind(self, pins: Pins) -> None:
        self._pins = pins

    def resolve(self, effect: str, link: Link) -> McpTool:
        """The tool, if it is accepted, or if it may turn out to be when its server is asked."""
        pin = self._pins.pin(link, effect.removeprefix(PREFIX)) if self._pins is not None else None
        if pin is not None and (found := unusable(effect, pin, link)) is not None:
            raise Refusal(found)
        return McpTool(self, effect, pin)

    async def ready(self) -> "McpClient":
        """The client, loaded in a thread: it takes a second, once."""
        if self._client is None:
            assert self._pins is not None
            made = await asyncio.to_thread(_loaded)
            if self._client is None:
                self._client = made(self._pins, self._fault_of)
        return self._client

    async def ask(self, link: Link) -> None:
        await (await self.ready()).ask(link)

    async def keep(self) -> None:
        if self._client is not None:
            await self._client.keep()


def unusable(effect: str, pin: Pin, link: Link) -> Problem | None:
    """Why a tool may not be called, with the step that would let it; None when it may."""
    state, tool = pin.state, pin.seen.name
    about: dict[str, Any] = {"effect": effect, "connection": link.name, "tool": tool, "state": state}
    about["digest"] = pin.digest
    where = {"namespace": link.namespace, "name": link.name}
    look = Next(operation="connections.tools", arguments=where, why="shows the tools, and what has changed of them")
    if state == "accepted":
        return None
    if state == "gone":
        detail = f"the server of {link.name} does not offer {tool} any more"
        return problem("UNKNOWN_EFFECT", detail, next=[look], **about, known=[])
    if state == "unusable" or pin.seen.fault:
        detail = f"tool {tool} of {link.name} can not be used: {pin.seen.fault}"
        return problem("TOOL_NOT_ACCEPTED", detail, next=[look], **about)
    accept = Next(
        operation="connections.accept",
        arguments={**where, "tool": tool, "digest": pin.digest},
        why="accepts it as it is now",
        clears=True,
    )
    words = {"new": "was not accepted yet", "changed": "is not what was accepted any more"}[state]
    detail = f"tool {tool} of {link.name} {words}; it is held until an operator accepts it"
    return problem("TOOL_NOT_ACCEPTED", detail, next=[accept, look], **about)


def absent(effect: str, link: Link, known: list[str]) -> Refusal:
    """There is no such tool."""
    where = {"namespace": link.namespace, "name": link.name}
    step = Next(operation="connections.tools", arguments=where, why="shows the tools")
    detail = f"the server of {link.name} offers no {effect.removeprefix(PREFIX)}"
    return refuse("UNKNOWN_EFFECT", detail, next=[step], effect=effect, connection=link.name, known=known)


def _loaded() -> "type[McpClient]":
    from controlplane.protocols.mcp_client import McpClient

    return McpClient


PROTOCOL = Declaration("mcp", lambda around: (McpFamily(around.fault_of),))
