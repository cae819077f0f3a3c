"""Where an answer leads: OpenAPI links, made from the catalogue, so that none can be forgotten.

An answer names things, and the operations that take just those names are one step away: a plan leads to
its commit, a change to waiting for it, a page to the next one. What an answer names is read off its
model's fields; what an operation takes, off its path. A tool that walks the document needs nothing else.
"""

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel

from controlplane.resources.catalogue import OPERATIONS
from controlplane.resources.operation import Operation

Names = dict[str, str]  # parameter → runtime expression
_IDS = {"plan_id", "change_id", "turn_id", "token_id", "question_id"}
_ON = {"next_page": "page", "cursor": "after"}  # field of an answer → field of the next call of the same operation
_AGENTS_OWN = {"agents": ("turns.list",)}  # by name, but under a noun of their own
_BODY = "$response.body#"


def links(operation: Operation) -> dict[str, Any]:
    """The links of an operation's answer."""
    found: dict[str, Any] = {}
    for names, noun in _named(operation):
        for target in _takers(names, noun):
            if target is operation and operation.effect == "read":
                continue  # it would only say the same again
            parameters = {name: names[name] for name in _taken(target)}
            found.setdefault(target.name, {"operationId": target.name, "parameters": parameters})
    on = {_ON[field]: f"{_BODY}/{field}" for field in _ON if field in operation.output.model_fields}
    on = {name: expression for name, expression in on.items() if name in operation.input.model_fields}
    if on:
        there = {name: f"$request.path.{name}" for name in _in_path(operation)}
        found["next"] = {"operationId": operation.name, "parameters": there | on}
    return found


def _named(operation: Operation) -> Iterator[tuple[Names, str]]:
    """What an answer names, and the noun of it: ids, a resource by namespace and name, the first of a list."""
    here, model = "", operation.output
    if (item := _item(model)) is not None:
        here, model = "/items/0", item
    fields = model.model_fields
    for id_ in sorted(_IDS & set(fields)):
        yield {id_: f"{_BODY}{here}/{id_}"}, ""
    if "metadata" in fields:
        yield _both(f"{_BODY}{here}/metadata/"), operation.noun
    elif "steps" in fields and operation.verb == "propose" and operation.noun != "resources":
        yield _both(f"{_BODY}/steps/0/target/"), operation.noun
    elif {"namespace", "name"} <= set(_in_path(operation)):
        yield _both("$request.path."), operation.noun
    elif operation.name == "operations.search":
        yield {"name": f"{_BODY}{here}/name"}, operation.noun


def _both(start: str) -> Names:
    return {"namespace": f"{start}namespace", "name": f"{start}name"}


def _item(model: type[BaseModel]) -> type[BaseModel] | None:
    """The model of a list's items."""
    items = model.model_fields.get("items")
    inner = get_args(items.annotation) if items is not None else ()
    return inner[0] if inner else None


def _takers(names: Names, noun: str) -> Iterator[Operation]:
    """The operations that these names are enough for."""
    for target in OPERATIONS.values():
        own = not noun or target.noun == noun or target.name in _AGENTS_OWN.get(noun, ())
        if own and _taken(target) and set(_taken(target)) <= set(names):
            yield target


def _taken(target: Operation) -> tuple[str, ...]:
    """The names that an operation is called by."""
    in_path = _in_path(target)
    return in_path or (("namespace", "name") if target.name in _AGENTS_OWN["agents"] else ())


def _in_path(operation: Operation) -> tuple[str, ...]:
    return tuple(part[1:-1] for part in operation.path.split("/") if part.startswith("{"))
