"""What every operation is called with, made from the fields of its input.

A field either names something (`REFERENCES`) or does not (`INERT`); one that is in neither has no case,
and a test says so. From a field that names something come inputs that name what is foreign; each
has a twin that names what is nowhere in the same way.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from controlplane.resources.catalogue import OPERATIONS
from controlplane.resources.operation import Operation
from tests.authorization.worlds import HIDDEN, World, manifest

RECORDS = ("plan_id", "change_id", "turn_id", "token_id", "host_id", "question_id", "invitation_id")
PLACES = ("namespace", "namespaces", "manifest", "manifests")
REFERENCES = {
    *RECORDS, *PLACES, "name", "agent", "fleet", "labels", "filter", "page", "after", "request_id", "files",
    "principal", "to_host", "from_host", "chain", "dead_letter_ids", "capability", "message_id",
    "channel_namespace",
}  # fmt: skip
INERT = {
    "limit", "wait_s", "timeout_s", "dry_run", "data", "key", "on_miss", "query", "role", "expires_in_s", "start",
    "arguments", "branch", "position", "outcome", "result", "reason", "node", "undo", "answer",
    "since", "until", "by", "window", "at", "meter", "budget", "intent", "batch", "meaning", "conversation",
    "accepted_at", "tool", "digest", "roles", "refresh", "priority", "delay_s", "ttl_s",
    "purpose", "capabilities", "address", "lease_s", "kind", "to_namespace", "to_agent", "effects",
    "value", "keys", "cancel",
}  # fmt: skip
QUICK = {"timeout_s": 0.01, "wait_s": 0}
FLEET_MAX = 100_000  # half of what a namespace may hold
OURS = 3  # agents that are there in `default`


@dataclass(frozen=True)
class Case:
    """One input that names what is foreign, by one field."""

    field: str
    given: dict[str, Any]


def own_input(operation: Operation, world: World) -> dict[str, Any]:
    """The operation's example, about what is there in `default`."""
    given = dict(operation.example)
    given |= {name: value for name, value in QUICK.items() if name in given}
    given |= {name: world.own[name] for name in RECORDS if name in operation.input.model_fields and name in given}
    if operation.name == "turns.settle":
        given["turn_id"] = "turn_1"  # the one that has a held effect
    if operation.name in ("operations.call", "operations.describe"):
        given["name"] = "agents.get"
    if operation.name == "operations.call":
        given["arguments"] = {"name": "echo"}
    return given


def foreign_cases(operation: Operation, world: World, foreign: dict[str, Any]) -> list[Case]:
    """Inputs that name what is foreign; `foreign` are ids of the full world, whatever world is asked."""
    base = own_input(operation, world)
    fields = operation.input.model_fields
    if operation.noun == "operations":
        fields = {}  # names of operations; what they call has its own cases
    found = []
    for field in fields:
        for value in _values(operation, field, world, foreign):
            given = {**base, field: value}
            found.append(Case(field, given))
            if field == "name" and "namespace" in fields and "agent" not in fields:
                found.append(Case("namespace", {**given, "namespace": "elsewhere"}))
    return found


def _values(operation: Operation, field: str, world: World, foreign: dict[str, Any]) -> Iterator[Any]:
    if field in ("manifest", "manifests"):
        several = field == "manifests"
        kinds = [OPERATIONS[f"{noun}.propose"].example["manifest"]["kind"] for noun in _nouns(operation)]
        for one in (it for kind in kinds for it in manifests(kind, foreign)):
            yield [one] if several else one
        if several:
            yield [manifest("Channel", "mixed"), manifest("Channel", "mixed", "elsewhere")]
            half = manifest("Fleet", "hiddens", replicas=FLEET_MAX)
            for replicas in (FLEET_MAX - OURS, FLEET_MAX - OURS + 1):  # all that `default` has room for, and one more
                yield [half, manifest("Fleet", "hidden", replicas=replicas)]
        return
    yield from {
        "plan_id": [foreign["plan_id"], foreign["committed_plan_id"], world.own["spanning_plan"]],
        "change_id": [foreign["change_id"], world.own["spanning"]],
        "turn_id": [foreign["turn_id"]],
        "host_id": [foreign["host_id"]],
        "to_host": [foreign["host_id"]],
        "from_host": [foreign["host_id"]],
        "question_id": [foreign["question_id"]],
        "invitation_id": [foreign["invitation_id"]],
        "token_id": [foreign["token_id"], foreign["half_token_id"]],
        "namespace": ["elsewhere"],
        "namespaces": [["elsewhere"], ["default", "elsewhere"], ["*"]],
        "name": ["hidden"],
        "agent": ["hidden"],
        "fleet": ["hiddens"],
        "labels": [{"hidden": "yes"}],
        "filter": [
            {"namespace": "elsewhere"}, {"change_id": foreign["change_id"]}, {"change_id": world.own["spanning"]},
            {"name": "hidden"}, {"kind": "Fleet", "name": "hiddens"}, {"types": ["token.*", "host.*"]},
        ],
        "page": _pages(operation, world, foreign),
        "after": [world.own["middle"], world.own["cursor"]] if operation.name == "feedback.read" else ["5"],
        "request_id": ["shared"],
        "files": [HIDDEN],
        "chain": [foreign["chain"]],
        "dead_letter_ids": [[foreign["dead_letter_id"]]],
        "principal": ["op"],
        "capability": ["hidden"],
        "message_id": ["msg_theirs"],
        "channel_namespace": ["elsewhere"],
    }.get(field, [])  # fmt: skip


def _nouns(operation: Operation) -> list[str]:
    nouns = [it.noun for it in OPERATIONS.values() if "manifest" in it.example]
    return nouns if operation.noun == "resources" else [operation.noun]


def _pages(operation: Operation, world: World, foreign: dict[str, Any]) -> list[str]:
    if operation.name == "tokens.list":
        return [foreign["token_id"]]
    return [world.own["changes_page"] if operation.name == "changes.list" else foreign["page"]]


def manifests(kind: str, foreign: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Manifests of a kind that reach for what is foreign, by place, name or reference."""
    example = OPERATIONS[f"{kind.lower()}s.propose"].example["manifest"]
    yield manifest(kind, example["metadata"]["name"], "elsewhere")
    yield manifest(kind, "hidden")
    code = {"code": {"digest": foreign["digest"]}}
    if kind == "Agent":
        yield manifest(kind, "hiddens-0")
        yield manifest(kind, "watcher", watches=[{"channel": "hidden", "start": "beginning"}])
        yield manifest(kind, "thief", **code, entrypoint="hidden:Hidden")
        yield manifest(kind, "thief", **code, entrypoint="hidden:Missing")
    if kind == "Fleet":
        spec = {**manifest("Agent", "x")["spec"], **code, "entrypoint": "hidden:Hidden"}
        yield manifest(kind, "hiddens")
        yield manifest(kind, "thieves", template={"labels": {}, "spec": spec})
    if kind == "Connection":
        yield manifest(kind, "opener", secret={"name": "hidden", "key": "password"})
    if kind == "Secret":
        yield manifest(kind, "hidden", values={"password": {"set": True}})


def absent_twin(value: Any, foreign: dict[str, Any]) -> Any:
    """The same, naming what is nowhere."""
    return orjson.loads(absent_text(orjson.dumps(value).decode(), foreign))


def absent_text(text: str, foreign: dict[str, Any]) -> str:
    for name, known in foreign.items():
        if name != "page":
            turned = known[:-6] + ("000000" if known[-6:] != "000000" else "111111")
            text = text.replace(known, turned)
    return text.replace("hidden", "absent").replace("elsewhere", "nowhere").replace('"shared"', '"unused"')
