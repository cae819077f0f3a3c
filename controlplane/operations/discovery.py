"""Finding, describing and calling operations by name: the catalogue, for clients with few tools.

Search ranks by how many words of the query an operation's name, summary and description share,
names counting most, and of equals shows first what only reads; it reads nothing but the catalogue. A
call goes through the dispatcher under the caller's own rights, as if the operation had been called
directly.
"""

import re
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any

from pydantic import BaseModel

from controlplane.resources.catalogue import OPERATIONS
from controlplane.resources.operation import Operation
from controlplane.resources.problems import refuse
from schemas.plan import Preview
from schemas.ports import Handler
from schemas.principal import Call, Principal
from schemas.problem import Next, Refusal
from schemas.records import (
    OperationCallInput,
    OperationDescribeInput,
    OperationDescription,
    OperationResult,
    OperationsFound,
    OperationsSearchInput,
    OperationSummary,
)

Dispatch = Callable[[Principal, str, dict[str, Any]], Awaitable[BaseModel]]

_NAME_WEIGHT, _SUMMARY_WEIGHT, _TEXT_WEIGHT = 6, 3, 1
_WORD = re.compile(r"[a-z0-9]+")
_EMPTY_WORDS = frozenset(
    _WORD.findall("a an and are at by for from i in into is it its my of on or the there to what which with")
)


def words(text: str) -> frozenset[str]:
    """The telling words of a text, without plural and verb endings."""
    return frozenset(_stem(word) for word in _WORD.findall(text.lower()) if word not in _EMPTY_WORDS)


def _stem(word: str) -> str:
    for ending in ("ing", "es", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


@cache
def _indexed() -> tuple[tuple[Operation, frozenset[str], frozenset[str], frozenset[str]], ...]:
    return tuple(
        (operation, words(operation.name), words(operation.summary), words(operation.description))
        for operation in OPERATIONS.values()
    )


def search(query: str, limit: int) -> list[Operation]:
    """The best first; without a query, all in the catalogue's order."""
    wanted = words(query)
    if not wanted:
        return list(OPERATIONS.values())[:limit]
    scored = [
        (
            _NAME_WEIGHT * len(wanted & name)
            + _SUMMARY_WEIGHT * len(wanted & summary)
            + _TEXT_WEIGHT * len(wanted & text),
            operation,
        )
        for operation, name, summary, text in _indexed()
    ]
    ranked = sorted(
        (pair for pair in scored if pair[0]), key=lambda pair: (-pair[0], pair[1].effect != "read", pair[1].name)
    )
    return [operation for _, operation in ranked[:limit]]


def find_operation(name: str) -> Operation:
    """The operation of a name; raises UNKNOWN_OPERATION with the nearest by words."""
    operation = OPERATIONS.get(name)
    if operation is None:
        raise refuse(
            "UNKNOWN_OPERATION",
            f"there is no operation {name}",
            field="/name",
            next=[
                Next(
                    operation="operations.search",
                    arguments={"query": " ".join(sorted(words(name)))[:400]},
                    why="finds operations by words",
                )
            ],
            name=name,
        )
    return operation


@cache
def schemas_of(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """JSON Schemas of an operation's input and output; what acts at once may also answer a preview."""
    operation = OPERATIONS[name]
    output = operation.output.model_json_schema(mode="serialization")
    if operation.imperative:
        preview = Preview.model_json_schema(mode="serialization")
        definitions = output.pop("$defs", {})
        output = {"anyOf": [output, preview]} | ({"$defs": definitions} if definitions else {})
    return operation.input.model_json_schema(), output


def _summary(operation: Operation) -> dict[str, Any]:
    return {
        "name": operation.name,
        "summary": operation.summary,
        "effect": operation.effect,
        "repeats_safely": operation.repeats_safely,
        "role": operation.role,
        "method": operation.method,
        "path": operation.path,
    }


def describe(operation: Operation) -> OperationDescription:
    """All that the catalogue says of an operation."""
    taken, given = schemas_of(operation.name)
    return OperationDescription(
        **_summary(operation),
        description=operation.description,
        input_schema=taken,
        output_schema=given,
        problems=list(operation.problems),
        example=operation.example,
    )


def under(pointer: str, refusal: Refusal) -> Refusal:
    """The refusal of an input that stands inside another one."""
    found = refusal.problem
    return Refusal(found.model_copy(update={"field": pointer + found.field})) if found.field is not None else refusal


class Discovery:
    """Handlers of `operations.search`, `operations.describe`, `operations.call`."""

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch

    async def search(self, call: Call, given: OperationsSearchInput) -> OperationsFound:
        found = search(given.query, given.limit)
        return OperationsFound(items=[OperationSummary(**_summary(operation)) for operation in found])

    async def describe(self, call: Call, given: OperationDescribeInput) -> OperationDescription:
        return describe(find_operation(given.name))

    async def call(self, call: Call, given: OperationCallInput) -> OperationResult:
        operation = find_operation(given.name)
        if operation.name == call.operation:
            raise refuse(
                "INVALID_VALUE",
                "operations.call can not call itself; name the operation that is wanted",
                field="/name",
                name=given.name,
            )
        try:
            output = await self._dispatch(call.principal, operation.name, given.arguments)
        except Refusal as refusal:
            raise under("/arguments", refusal) from None
        return OperationResult(name=operation.name, output=output.model_dump(mode="json"))


def handlers(dispatch: Dispatch) -> dict[str, Handler]:
    """The three, by name."""
    discovery = Discovery(dispatch)
    return {
        "operations.search": discovery.search,
        "operations.describe": discovery.describe,
        "operations.call": discovery.call,
    }
