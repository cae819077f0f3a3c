"""Calling a tool of an MCP server, and what is made of its answer.

What was certainly not sent is `Unreached`; what the server answered as an error has failed; what broke off after it
was sent is a `Doubt`. The result is data of a stranger's: bounded, and held against the tool's schema by our own
validator, because the one of the client runs patterns that a server could make endless.
"""

from collections.abc import Callable
from typing import Any

import mcp_types as types
import orjson
from mcp import MCPError
from pydantic import BaseModel, ConfigDict, ValidationError

from controlplane.protocols.mcp import absent, unusable
from controlplane.protocols.mcp_allowed import Startable
from controlplane.protocols.mcp_http import ERRORS_FROM, FLIGHT, Flight
from controlplane.protocols.mcp_sessions import Session, Sessions, reason_of
from controlplane.protocols.scrubbing import scrubbed, shortened
from controlplane.resources.problems import refuse
from schemas.mcp_connection import STDIO
from schemas.offers import Pin
from schemas.ports import Doubt, EffectCall, Link, Pins, Unreached
from schemas.problem import Refusal

KEY = "steward/idempotency-key"  # in `_meta`, for a server that cares; none has to
TEXT_CHARS_MAX = 1_000  # of what a failed tool says
ANSWER_BYTES_MAX = 2_000_000  # as JSON, so that it fits into a receipt
STRUCTURED_BYTES_MAX = 16_384  # of what a failed tool answers
KNOWN_MAX = 100
BROKE = (types.CONNECTION_CLOSED, types.REQUEST_TIMEOUT, types.PARSE_ERROR)
SERVER_ERROR = 500
GONE = 404


class Raw(BaseModel):
    """An answer as it came: which of the forms of a result it has is looked at here."""

    model_config = ConfigDict(extra="allow")


class McpClient:
    """The client of all connections of this gate."""

    def __init__(self, pins: Pins, fault_of: Callable[[dict[str, Any], Any], str | None]) -> None:
        self._pins = pins
        self._fault_of = fault_of
        self._sessions = Sessions(Startable(pins.commands, pins.variables))

    async def ask(self, link: Link) -> None:
        """Look what the server offers now, and keep it."""
        async with self._sessions.using(link, fresh=True) as session:
            await self._pins.seen(link, session.tools)

    async def keep(self) -> None:
        await self._sessions.keep(self._pins.generation)

    async def call(self, effect: str, tool: str, given: dict[str, Any], call: EffectCall) -> Any:
        """The result of a tool that is accepted."""
        link = call.link
        assert link is not None
        async with self._sessions.using(link) as session:
            pin = await self._pinned(effect, tool, session, link)
            if (fault := self._fault_of(pin.seen.input_schema, given)) is not None:
                raise refuse("INVALID_VALUE", f"{effect}: {fault}", field="/arguments", effect=effect, message=fault)
            meta = {KEY: call.key, **({"traceparent": call.traceparent} if call.traceparent else {})}
            answer = await self._sent(session, link, tool, given, meta)
        return self._told(effect, pin, answer, link)

    async def _pinned(self, effect: str, tool: str, session: Session, link: Link) -> Pin:
        """What is accepted of the tool; refused where that is not what its server says of it now."""
        if session.kept is not session.tools:
            await self._pins.seen(link, session.tools)
            session.kept = session.tools
        if tool not in session.tools:
            raise absent(effect, link, sorted(session.tools)[:KNOWN_MAX])
        pin: Pin | None = self._pins.pin(link, tool)
        if pin is None or pin.digest != session.tools[tool].digest:
            session.kept = None
            raise Unreached(f"what {link.name} offers was changed by another; it is looked at again")
        if (found := unusable(effect, pin, link)) is not None:
            raise Refusal(found)
        return pin

    async def _sent(
        self, session: Session, link: Link, tool: str, given: dict[str, Any], meta: dict[str, Any]
    ) -> dict[str, Any]:
        flight = Flight(sent=link.spec.endpoint == STDIO)
        token = FLIGHT.set(flight)
        asked = types.CallToolRequest(params=types.CallToolRequestParams(name=tool, arguments=given, _meta=meta))
        try:
            raw = await session.client.session.send_request(asked, Raw)
            return raw.model_extra or {}
        except MCPError as error:
            raise self._error(error, flight, session, link) from error
        except ValidationError as error:
            raise Doubt("was answered by what is no result of a tool") from error
        except (OSError, RuntimeError) as error:
            self._sessions.broken(link)
            raise _broke(reason_of(error, flight, link.secret), flight) from error
        finally:
            FLIGHT.reset(token)

    def _error(self, error: MCPError, flight: Flight, session: Session, link: Link) -> Exception:
        """What an error says of the call: not sent, failed, or nobody knows."""
        if flight.refusal is not None and not flight.taken:
            return flight.refusal
        code, why = error.error.code, reason_of(error, flight, link.secret)
        if code == types.CONNECTION_CLOSED or flight.status == GONE:
            self._sessions.broken(link)
        nobody = flight.status == GONE and not flight.taken  # or a session that is over: no tool was called
        if not flight.sent or nobody:
            return Unreached(f"could not reach {link.name}: {why}")
        lost = flight.taken and (flight.odd or flight.status >= ERRORS_FROM or flight.refusal is not None)
        if lost or code in BROKE or flight.broke or flight.status >= SERVER_ERROR:
            said = f"; it said: {scrubbed(session.said.text, link.secret)[-300:]}" if session.said.text else ""
            return Doubt(f"was cut off: {why}{said}")
        detail = f"{link.name} refused the call: {why}"
        return refuse("EFFECT_FAILED", detail, connection=link.name, code=code, status=flight.status or None)

    def _told(self, effect: str, pin: Pin, answer: dict[str, Any], link: Link) -> dict[str, Any]:
        """The answer as the agent gets it; raises the Refusal of a tool that says that it failed."""
        if answer.get("resultType") == "input_required":
            detail = f"{effect}: the server of {link.name} asks for more than its arguments, which is not given to it"
            raise refuse("EFFECT_FAILED", detail, effect=effect, connection=link.name)
        try:
            result = types.CallToolResult.model_validate(answer, by_name=False)
        except ValidationError as error:
            raise Doubt("was answered by what is no result of a tool") from error
        text = "\n".join(it.text for it in result.content if isinstance(it, types.TextContent))
        structured = result.structured_content
        if result.is_error:
            kept = structured if len(_json(structured)) <= STRUCTURED_BYTES_MAX else None
            detail = f"{effect} failed: {shortened(text, TEXT_CHARS_MAX, link.secret) or 'it says no more'}"
            raise refuse("EFFECT_FAILED", detail, effect=effect, connection=link.name, structured=kept)
        others = [it for it in result.content if not isinstance(it, types.TextContent)]
        found: dict[str, Any] = {
            "text": text,
            "structured": structured,
            "content": [it.model_dump(mode="json", by_alias=True, exclude_none=True) for it in others],
            "fault": self._fault(pin, structured),
            "truncated": False,
        }
        for part in ("content", "text", "structured"):
            if len(_json(found)) <= ANSWER_BYTES_MAX:
                break
            found |= {part: [] if part == "content" else None, "truncated": True}
        return found

    def _fault(self, pin: Pin, structured: Any) -> str | None:
        """What is wrong with the structure by the tool's own schema; the result is told all the same."""
        schema = pin.seen.output_schema
        return None if schema is None else self._fault_of(schema, structured)


def _broke(why: str, flight: Flight) -> Exception:
    return Doubt(f"was cut off: {why}") if flight.sent else Unreached(f"could not be sent: {why}")


def _json(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except (orjson.JSONEncodeError, RecursionError) as error:
        raise Doubt(f"answered what is no JSON: {error}") from error
