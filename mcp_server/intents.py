"""Tools of `/mcp`: what an operator wants to do, in a few words.

An intent names an operation and its input; it computes nothing, and knows no rights. What it is
given and does not know is handed on, so that the dispatcher refuses it in the words of every
surface. The whole list stays small enough for a model to carry along.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import mcp_types as types

from controlplane.resources.catalogue import OPERATIONS
from controlplane.resources.operation import Operation
from controlplane.resources.problems import refuse
from mcp_server.hints import ACTS, KINDS
from mcp_server.intent_schemas import SCHEMAS
from mcp_server.results import OUTPUT_SCHEMA
from mcp_server.tools import annotations
from schemas.calls import ASK_TIMEOUT_S_MAX

NOUNS = {kind: noun for noun, kind in KINDS.items()}


@dataclass(frozen=True)
class Asked:
    """The operation that an intent stands for, with its input.

    `inside` is where that input stood in the tool's own, `renamed` what is called otherwise there.
    """

    operation: str
    arguments: dict[str, Any]
    inside: str = ""
    renamed: Mapping[str, str] = field(default_factory=dict)
    words: tuple[str, ...] = ()  # of `find`: what a name or label must contain


Intent = Callable[[dict[str, Any]], Asked]


def _direct(operation: str) -> Intent:
    return lambda given: Asked(operation, given)


def _of_kind(verb: str) -> Intent:
    def asked(given: dict[str, Any]) -> Asked:
        rest = dict(given)
        return Asked(f"{_noun(_take(rest, 'kind'))}.{verb}", rest)

    return asked


def _find(given: dict[str, Any]) -> Asked:
    rest = dict(given)
    noun, query = _noun(_take(rest, "kind")), rest.pop("query", None)
    if query is not None and not isinstance(query, str):
        raise refuse("INVALID_VALUE", "query must be a string", field="/query")
    return Asked(f"{noun}.list", rest, words=tuple((query or "").lower().split()))


def _wait(given: dict[str, Any]) -> Asked:
    if "change_id" in given:
        return Asked("changes.wait", given)
    if "wait_s" in given:
        raise refuse("UNKNOWN_FIELD", "wait has no field wait_s", field="/wait_s", name="wait_s")
    rest = {("wait_s" if name == "timeout_s" else name): value for name, value in given.items()}
    return Asked("feedback.read", rest, renamed={"/wait_s": "/timeout_s"})


def _act(given: dict[str, Any]) -> Asked:
    rest = dict(given)
    operation, arguments = _take(rest, "operation"), rest.pop("arguments", {})
    for name in rest:
        raise refuse("UNKNOWN_FIELD", f"act has no field {name}", field=f"/{name}", name=name)
    if operation not in ACTS:
        raise refuse(
            "INVALID_VALUE",
            f"act does one of {', '.join(ACTS)}; for others there is operations_call",
            field="/operation",
            operations=list(ACTS),
        )
    if not isinstance(arguments, dict):
        raise refuse("NOT_AN_OBJECT", "arguments must be an object", field="/arguments")
    return Asked(operation, arguments, inside="/arguments")


def _take(given: dict[str, Any], name: str) -> Any:
    if name not in given:
        raise refuse("MISSING_FIELD", f"{name} is missing", field=f"/{name}", name=name)
    return given.pop(name)


def _noun(kind: Any) -> str:
    noun = NOUNS.get(kind) if isinstance(kind, str) else None
    if noun is None:
        raise refuse("UNKNOWN_KIND", f"kind must be one of {', '.join(NOUNS)}", field="/kind", kinds=list(NOUNS))
    return noun


INTENTS: dict[str, Intent] = {
    "look": _direct("system.brief"),
    "find": _find,
    "get": _of_kind("get"),
    "propose": _direct("resources.propose"),
    "commit": _direct("plans.commit"),
    "wait": _wait,
    "undo": _direct("changes.revert"),
    "act": _act,
    "operations_search": _direct("operations.search"),
    "operations_describe": _direct("operations.describe"),
    "operations_call": _direct("operations.call"),
}

_DESCRIPTIONS: dict[str, str] = {
    "look": "How things are, in a few sentences, with a cursor to wait from. Start here.",
    "find": "List resources of a kind. `labels` must all match; `query` keeps those of the page whose name or labels "
    "hold every word. More pages: `truncated.page`.",
    "get": "One resource: its spec (wanted) and status (observed conditions).",
    "propose": "Propose resources; changes nothing. Answers a plan: ordered steps and the claims that will be "
    "verified. A manifest replaces spec and labels whole. Agent spec: {code: {files: {path: source}}, entrypoint: "
    "'module:Class', mandate: {purpose, grants}, …}, or {runtime: 'llm', llm: {connection, model, …}, mandate}; "
    "Fleet: {replicas, template}; Channel: {}; Secret: {values}. "
    "Full schema: operations_describe {name: 'agents.propose'}. To delete: operations_call 'agents.delete'.",
    "commit": "Commit a plan, once. outcome: committed | already_committed | superseded | stale (a new plan is "
    "proposed already) | held. on_miss: what to do if a claim misses.",
    "wait": "With change_id: until the change is done, its claims verified. Without: until something happens after "
    "the cursor `after` (feedback events, oldest first). A timeout is no error.",
    "undo": "Propose the way back from a change: a plan that restores only what it wrote and nobody moved since. "
    "Commit it.",
    "act": "Act at once on agents and channels. `arguments` always hold namespace and name; send and publish take "
    f"data, ask takes data and timeout_s ({ASK_TIMEOUT_S_MAX} at most), join and leave take agent. dry_run "
    "previews; the same request_id never acts twice.",
}


def _tool(name: str) -> types.Tool:
    return types.Tool(
        name=name,
        description=_DESCRIPTIONS.get(name) or OPERATIONS[name.replace("_", ".", 1)].description,
        input_schema=SCHEMAS[name],
        output_schema=OUTPUT_SCHEMA,
        annotations=_annotations(name),
    )


def _annotations(name: str) -> types.ToolAnnotations:
    """Those of the operation behind; of `act`, those of the most that it may do."""
    behind: dict[str, str] = {
        "look": "system.brief",
        "find": "agents.list",
        "get": "agents.get",
        "propose": "resources.propose",
        "commit": "plans.commit",
        "wait": "changes.wait",
        "undo": "changes.revert",
        "act": "agents.send",
    }
    operation: Operation = OPERATIONS[behind.get(name, name.replace("_", ".", 1))]
    return annotations(operation)


INTENT_TOOLS: list[types.Tool] = [_tool(name) for name in INTENTS]
