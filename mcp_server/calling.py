"""From a tool call to an operation's call, and back to one result.

Both endpoints are the same function over another table of tools. The MCP boundary is here: a
Refusal becomes an error result, and whatever nobody expected becomes INTERNAL, logged by the place
it came from and without its message; only an unknown tool is an error of the protocol.
"""

import logging
import traceback
from collections.abc import Container
from dataclasses import replace
from typing import Any

import mcp_types as types
from mcp import MCPError
from pydantic import BaseModel

from controlplane.resources.catalogue import OPERATIONS
from controlplane.resources.problems import problem
from mcp_server.callers import Caller
from mcp_server.eliciting import InputNeededError, Person
from mcp_server.hints import Translate, to_full, to_intent
from mcp_server.intents import INTENTS, Asked
from mcp_server.results import Result, refused, result
from mcp_server.tools import BY_NAME, BY_OPERATION, under_data
from schemas.principal import Principal
from schemas.problem import Problem, Refusal

ASK = "agents.ask"
_logger = logging.getLogger("steward.mcp")


class Tools:
    """The tools of one endpoint: how they are understood, and how steps are named."""

    def __init__(self, call: Caller, *, intents: bool) -> None:
        self._call = call
        self._understand = understand_intent if intents else understand_operation
        self._names: Container[str] = INTENTS if intents else BY_NAME
        self._translate: Translate = to_intent if intents else to_full

    async def call(
        self, principal: Principal, call_id: str, name: str, arguments: dict[str, Any], person: Person | None = None
    ) -> Result | types.InputRequiredResult:
        """The result of one tool call; raises MCPError for a tool that is not there."""
        try:
            asked = self._understand(name, arguments)
            return await self._answer(principal, asked, person)
        except InputNeededError as needed:
            return needed.result
        except Refusal as refusal:
            found = refusal.problem
        except MCPError:
            raise
        except Exception as error:  # noqa: BLE001 - the MCP boundary: whatever is left becomes INTERNAL
            found = unexpected(error, call_id)
        return self._refused(principal, call_id, found)

    def refuse(self, principal: Principal, call_id: str, name: str, found: Problem) -> Result:
        """The result of a call whose arguments can not be read; raises MCPError for a tool that is not there."""
        if name not in self._names:
            raise _unknown(name)
        return self._refused(principal, call_id, found)

    def _refused(self, principal: Principal, call_id: str, found: Problem) -> Result:
        found = found.model_copy(update={"instance": f"urn:steward:call:{call_id}"})
        return refused(found, principal, self._translate)

    async def _answer(self, principal: Principal, asked: Asked, person: Person | None) -> Result:
        if person is not None and asked.operation == ASK:
            asked = replace(asked, arguments=person.named(asked.arguments))
        try:
            calling = self._call(principal, asked.operation, asked.arguments)
            if person is not None and asked.operation == ASK:
                calling = person.beside(calling, asked.arguments)
            output = await calling
        except Refusal as refusal:
            raise _told_by_intent(refusal, asked) from None
        if asked.words:
            output = _with_words(output, asked.words)
        operation = OPERATIONS[asked.operation]
        return result(operation, asked.arguments, output, principal, self._translate, _untrusted(asked))


def understand_operation(name: str, arguments: dict[str, Any]) -> Asked:
    """A tool of `/mcp/full`."""
    tool = BY_NAME.get(name)
    if tool is None:
        raise _unknown(name)
    return Asked(tool.operation.name, arguments)


def understand_intent(name: str, arguments: dict[str, Any]) -> Asked:
    """A tool of `/mcp`."""
    intent = INTENTS.get(name)
    if intent is None:
        raise _unknown(name)
    return intent(arguments)


def _unknown(name: str) -> MCPError:
    return MCPError(types.INVALID_PARAMS, f"unknown tool {name[:100]}")


def _untrusted(asked: Asked) -> tuple[str, ...]:
    """Of a call by name, what the operation that was called declares."""
    if asked.operation != "operations.call":
        return BY_OPERATION[asked.operation].untrusted
    called = OPERATIONS.get(str(asked.arguments.get("name")))
    return under_data(called.untrusted, inside="/output") if called else ()


def _told_by_intent(refusal: Refusal, asked: Asked) -> Refusal:
    """The refusal, pointing into what the tool was given."""
    found = refusal.problem
    pointer = found.field
    if pointer is None:
        return refusal
    if asked.inside:
        pointer = asked.inside + pointer
    pointer = asked.renamed.get(pointer, pointer)
    return Refusal(found.model_copy(update={"field": pointer}))


def _with_words(output: BaseModel, words: tuple[str, ...]) -> BaseModel:
    """The items of a page whose name or labels hold every word."""
    items = [item for item in getattr(output, "items", []) if _holds(item, words)]
    return output.model_copy(update={"items": items})


def _holds(item: Any, words: tuple[str, ...]) -> bool:
    metadata = item.metadata
    text = " ".join((metadata.name, *(f"{key} {value}" for key, value in metadata.labels.items()))).lower()
    return all(word in text for word in words)


def unexpected(error: Exception, call_id: str) -> Problem:
    """INTERNAL for what nobody expected; the log gets its kind and its place."""
    frames = reversed(traceback.extract_tb(error.__traceback__))
    place = " < ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames)
    _logger.error("call %s failed: %s at %s", call_id, type(error).__qualname__, place)
    found = problem(
        "INTERNAL", f"something broke here; the log of the plane tells more under call {call_id}", call=call_id
    )
    return found.model_copy(update={"changed": "unknown"})
