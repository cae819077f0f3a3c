"""What a walk has deleted, and what of it is still spoken of."""

from collections.abc import Iterable, Iterator
from typing import Any

from schemathesis import Case

from fuzz.rules import KINDS

Named = tuple[str, str, str]  # kind, namespace, name
Step = tuple[Case[Any], Any]  # a request, and the JSON that answered it


def name_of(case: Case[Any]) -> str:
    """The name of the operation that a case calls."""
    return str(case.operation.definition.raw.get("operationId"))


def spoken_of(case: Case[Any], body: Any) -> Iterator[Named]:
    """The resources that must be there for an answer to be a success, and those that it lists."""
    noun, _, verb = name_of(case).partition(".")
    if (kind := KINDS.get(noun)) is None:
        return
    path = case.path_parameters or {}
    if {"namespace", "name"} <= set(path):
        yield kind, path["namespace"], path["name"]
        agent = case.body.get("agent") if verb == "join" and isinstance(case.body, dict) else None
        if isinstance(agent, str):
            yield "Agent", path["namespace"], agent
    elif verb == "list" and isinstance(body, dict):
        for item in body.get("items", ()):
            yield kind, item["metadata"]["namespace"], item["metadata"]["name"]


def deleted(steps: Iterable[Step]) -> set[Named]:
    """What a committed plan deleted, and none made anew."""
    plans: dict[str, list[tuple[str, Named]]] = {}
    gone: set[Named] = set()
    for case, body in steps:
        if not isinstance(body, dict):
            continue
        if "plan_id" in body and "steps" in body and "claims_digest" in body:
            plans[body["plan_id"]] = [(it["action"], _named(it["target"])) for it in body["steps"]]
        if body.get("outcome") == "committed" and "change_id" in body:
            for action, target in plans.get(body.get("plan_id", ""), []):
                (gone.add if action == "delete" and not _may_come_back(case) else gone.discard)(target)
    return gone


def looks(steps: list[Step]) -> int:
    """How often a walk asked for what it had deleted, or for a list where it had stood."""
    found = 0
    for number, (case, body) in enumerate(steps):
        gone = deleted(steps[:number])
        of_kind = {kind for kind, _, _ in gone if f"{_noun(kind)}.list" == name_of(case)}
        found += bool(of_kind or gone & set(spoken_of(case, body)))
    return found


def _named(target: dict[str, Any]) -> Named:
    return target["kind"], target["namespace"], target["name"]


def _noun(kind: str) -> str:
    return next(noun for noun, of_noun in KINDS.items() if of_noun == kind)


def _may_come_back(case: Case[Any]) -> bool:
    """Whether the plane itself takes the change back if a claim misses."""
    return isinstance(case.body, dict) and case.body.get("on_miss") == "revert"
