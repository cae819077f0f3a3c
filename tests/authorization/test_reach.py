"""What belongs to whom: stored code, request ids, counts and events over several namespaces."""

from typing import Any

import pytest

from controlplane.resources.catalogue import OPERATIONS
from controlplane.resources.operation import Operation
from schemas.principal import Principal
from schemas.problem import Refusal
from tests.authorization import cases
from tests.authorization.test_matrix import may
from tests.authorization.worlds import ABROAD, ROOT, World, manifest

pytestmark = pytest.mark.anyio
BOTH = Principal("both", "operator", ("default", "elsewhere"))


def files(name: str) -> dict[str, str]:
    source = f"from ray_runtime import Agent\n\n\nclass {name}(Agent):\n    pass\n"
    return {"given.py": source}


async def refused(world: World, operation: str, principal: Principal, /, **raw: Any) -> str:
    with pytest.raises(Refusal) as found:
        await world.call(operation, principal, **raw)
    return found.value.problem.reason


async def named(world: World, principal: Principal, digest: str, entrypoint: str, namespace: str = "default") -> str:
    """What a proposal that names code by its digest is answered with."""
    agent = manifest("Agent", "user", namespace, code={"digest": digest}, entrypoint=entrypoint)
    try:
        await world.call("agents.propose", principal, manifest=agent)
    except Refusal as refusal:
        return refusal.problem.reason
    return "ok"


async def test_code_is_named_by_who_put_it(full: World) -> None:
    """For every namespace of who put it, and by who reaches all; by others not even its classes are guessed."""
    op, wide = full.principal("operator"), full.principal("operator of two")
    digest = (await full.call("code.put", wide, files=files("Wide")))["digest"]
    assert await named(full, op, digest, "given:Wide") == "ok"
    assert await named(full, ROOT, digest, "given:Wide", "elsewhere") == "ok"
    for entrypoint in ("given:Wide", "given:Other"):
        assert await named(full, ABROAD, digest, entrypoint, "elsewhere") == "CODE_NOT_FOUND"
    assert await named(full, op, digest, "given:Other") == "INVALID_CODE"
    assert (await full.call("code.put", ABROAD, files=files("Wide")))["digest"] == digest
    assert await named(full, ABROAD, digest, "given:Wide", "elsewhere") == "ok"


async def test_code_that_is_committed_belongs_to_its_namespace(full: World) -> None:
    """What an admin of all put is nobody else's until it is used; then it is proposed, changed and reverted there."""
    op = full.principal("operator")
    digest = (await full.call("code.put", ROOT, files=files("Given")))["digest"]
    given = {"code": {"digest": digest}, "entrypoint": "given:Given"}
    assert await named(full, op, digest, "given:Given") == "CODE_NOT_FOUND"
    plan_id = await full.propose(manifest("Agent", "given", **given))
    change_id = (await full.call("plans.commit", op, plan_id=plan_id))[
        "change_id"
    ]  # an admitted plan is anybody's there
    await full.settle(change_id)
    assert await named(full, op, digest, "given:Given") == "ok"
    assert await named(full, ABROAD, digest, "given:Given", "elsewhere") == "CODE_NOT_FOUND"
    await full.apply(manifest("Agent", "given"), principal=op)
    back = await full.apply(manifest("Agent", "given", **given), principal=op)
    assert (await full.call("changes.revert", op, change_id=back))["steps"]


async def test_a_plan_that_came_too_late_keeps_its_code(full: World) -> None:
    """The plan that takes its place is made of what was admitted, whoever commits."""
    op = full.principal("operator")
    digest = (await full.call("code.put", ROOT, files=files("Late")))["digest"]
    plan_id = await full.propose(manifest("Agent", "late", code={"digest": digest}, entrypoint="given:Late"))
    await full.apply(manifest("Agent", "late"), principal=op)
    late = await full.call("plans.commit", op, plan_id=plan_id)
    assert (late["outcome"], late["new_plan_id"] is not None) == ("stale", True)


IMPERATIVE = [it for it in OPERATIONS.values() if it.imperative and it.noun not in ("hosts", "nodes")]  # nobody's own


@pytest.mark.parametrize("operation", IMPERATIVE, ids=lambda it: it.name)
async def test_request_ids_are_of_a_principal_with_its_reach(full: World, operation: Operation) -> None:
    """Of two tokens of one name that reach other namespaces, neither is answered what the other was."""
    token_id = full.plane.token_ids["victim"]
    given = {**operation.example, "request_id": f"mine-{operation.name}"}
    given |= {
        name: value
        for name, value in (("token_id", token_id), ("timeout_s", 0.01), ("invitation_id", full.own["invitation_id"]))
        if name in given
    }
    given |= {"name": "echo"} if operation.name == "channels.redrive" else {}  # whose inbox has a letter
    named = {name: value for name, value in given.items() if name in ("name", "message_id")}
    role: Any = "admin" if operation.role == "admin" else "operator"
    here, there = Principal("twin", role, ("default",)), Principal("twin", role, ("elsewhere",))
    first = await full.call(operation.name, here, **given)
    if "namespace" in operation.input.model_fields:
        given["namespace"] = "elsewhere"
        names = {"channels.redrive": "hidden", "invitations.create": "echo", "discovery.register": "there"}
        names |= {"connections.accept": "hidden"}
        names |= {"discovery.renew": "far-judge", "discovery.unregister": "far-judge"}
        names |= {"routes.pause": "alarms", "routes.resume": "alarms", "routes.replay": "alarms"}
        given |= {"name": names.get(operation.name, "echo" if operation.noun == "agents" else "reports")}
        given |= {"message_id": "msg_theirs"} if "message_id" in given else {}
        second = await full.call(operation.name, there, **given)  # not REQUEST_ID_REUSED
        assert second != first
    elif operation.name == "code.put":
        assert await full.call(operation.name, there, **given) == first
    else:
        assert await refused(full, operation.name, there, **given) in ("NOT_FOUND", "FOREIGN_NAMESPACE")
    again = Principal("twin", role, ("default",), token_id="tok_new")
    given |= {"namespace": "default"} if "namespace" in given else {}
    given |= named
    repeated = await full.call(operation.name, again, **given)
    if operation.name == "tokens.create":
        first["token"] = None
    assert repeated == first


async def test_a_token_is_told_again_to_nobody_else(full: World) -> None:
    """Neither its request id nor its maker's name brings a token of more reach to who has less."""
    given = {"principal": "deploy", "role": "admin", "request_id": "made-once"}
    root, there = Principal("twin", "admin", ("*",)), Principal("twin", "admin", ("elsewhere",))
    first = await full.call("tokens.create", root, **given, namespaces=["*"])
    second = await full.call("tokens.create", there, **given, namespaces=["elsewhere"])
    assert second["token_id"] != first["token_id"]
    assert second["namespaces"] == ["elsewhere"]
    assert (await full.plane.parts.authenticate(first["token"])).namespaces == ("*",)
    assert (await full.plane.parts.authenticate(second["token"])).namespaces == ("elsewhere",)


async def test_the_limit_of_agents_is_each_namespaces_own(full: World) -> None:
    """Full is what a namespace itself holds; its refusal counts nothing else."""
    agents = len((await full.call("agents.list", namespace="default", limit=500))["items"])
    first = manifest("Fleet", "many", replicas=100_000)
    fits = manifest("Fleet", "more", replicas=100_000 - agents)
    assert await full.propose(first, fits, principal=full.principal("operator"))
    with pytest.raises(Refusal) as found:
        await full.propose(first, manifest("Fleet", "more", replicas=100_001 - agents), principal=BOTH)
    known = found.value.problem.metadata
    assert (found.value.problem.reason, known["namespace"], known["agents"]) == ("QUOTA", "default", agents)


async def test_events_of_a_change_tell_each_namespace_of_itself(full: World) -> None:
    """Steps, claims and verdicts are counted where they are; the change itself is for who reaches all of it."""
    far = [manifest("Channel", f"wide-{number}", "elsewhere") for number in range(4)]
    change_id = await full.apply(manifest("Channel", "wide"), *far, principal=BOTH)
    seen = {}
    for principal in (full.principal("operator"), ABROAD):
        page = await full.call("feedback.read", principal, limit=500, filter={"change_id": change_id})
        told = {it["type"]: it["data"] for it in page["events"] if it["type"] in ("change.committed", "change.done")}
        seen[principal.namespaces[0]] = (
            told["change.committed"]["steps"],
            told["change.committed"]["claims"],
            sum(told["change.done"]["verdicts"].values()),
        )
        assert await refused(full, "changes.get", principal, change_id=change_id) == "NOT_FOUND"
    assert seen == {"default": (1, 1, 1), "elsewhere": (4, 4, 4)}
    assert (await full.call("changes.get", BOTH, change_id=change_id))["done"]


async def test_open_changes_are_counted_as_they_are_listed(full: World) -> None:
    """A change over several namespaces counts for who reaches all of them, and for nobody else."""
    await full.rest()
    far, near = manifest("Agent", "waits", "elsewhere"), manifest("Channel", "waits")
    before = {it: await _open(full, it) for it in (BOTH, ABROAD, full.principal("operator"))}
    await full.apply(near, far, settle=False)
    after = {it: await _open(full, it) for it in before}
    assert [after[it] - before[it] for it in before] == [1, 0, 0]


async def _open(world: World, principal: Principal) -> int:
    counted: int = (await world.call("system.status", principal))["open_changes"]
    return counted


async def test_hosts_and_memory_of_others_are_not_told(full: World) -> None:
    """A host that serves one's own namespace is; unspecialised ones are for who reaches all."""
    mine = await full.call("hosts.list", full.principal("viewer"))
    assert [it["host_id"] for it in mine["items"]] == ["h-ours"]
    assert (await full.call("system.status", full.principal("viewer")))["hosts"] == 1
    everywhere = await full.call("hosts.list")
    assert {it["host_id"] for it in everywhere["items"]} == {"h-ours", "h-theirs", "h-warm"}
    assert (await full.call("system.status"))["hosts"] == 3


READS = [it for it in OPERATIONS.values() if it.effect == "read" and it.verb not in ("propose", "delete", "revert")]


async def test_nothing_of_ours_moves_while_others_work(full: World) -> None:
    """Every read answers the same before and after, to the last cursor, however it is filtered."""
    await full.rest()
    asked: list[tuple[Operation, dict[str, Any]]] = [(it, cases.own_input(it, full)) for it in READS]
    filters: list[dict[str, Any]] = [{"types": ["change.*"]}, {"kind": "Agent"}, {"name": "nobody"}, {}]
    asked += [(OPERATIONS["feedback.read"], {"limit": limit, "filter": it}) for it in filters for limit in (5, 500)]
    before = [await _steady(full, *it) for it in asked]
    await full.apply(manifest("Channel", "noise", "elsewhere"), principal=ABROAD)
    await full.call("agents.send", ABROAD, namespace="elsewhere", name="hidden", data="noise")
    await full.call("channels.publish", ABROAD, namespace="elsewhere", name="noise", data="noise")
    await full.call("tokens.create", principal="noise", role="viewer", namespaces=["elsewhere"])
    await full.call("code.put", ABROAD, files=files("Noise"))
    after = [await _steady(full, *it) for it in asked]
    for (operation, given), one, other in zip(asked, before, after, strict=True):
        assert one == other, (operation.name, given)


async def _steady(world: World, operation: Operation, given: dict[str, Any]) -> list[Any]:
    """What is answered to who may ask, without the moment of the answer."""
    answers: list[Any] = []
    for label in ("operator", "admin of two"):
        if not may(world.principal(label), operation):
            continue
        output = await world.call(operation.name, world.principal(label), **given)
        answers.append({key: it for key, it in output.items() if key != "as_of"})
        if operation.name == "operations.call":
            answers[-1]["output"].pop("as_of", None)
    return answers
