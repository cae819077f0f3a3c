"""Propose, commit, reconcile, verify, revert: the story of each kind, on both databases."""

from typing import Any

import pytest

from controlplane.mesh.making import made
from controlplane.operations import vanishing
from controlplane.store.unit import Unit
from schemas.principal import Principal
from schemas.problem import Refusal
from tests.operations.plane import Plane, agent, budget, channel, connection, fleet, route, secret

pytestmark = pytest.mark.anyio


async def reason(plane: Plane, operation: str, principal: Principal | None = None, **raw: object) -> str:
    with pytest.raises(Refusal) as refusal:
        await (plane.call(operation, principal, **raw) if principal else plane.call(operation, **raw))
    return refusal.value.problem.reason


async def test_a_channel_is_made_changed_and_taken_back(plane: Plane) -> None:
    """A channel goes through its whole life, each change verified."""
    made = await plane.apply(channel("reports"))
    assert made["outcome"] == "verified"
    assert made["steps"] == [{"index": 0, "done": True}]
    found = await plane.call("channels.get", name="reports")
    assert found["status"]["conditions"][0]["status"] == "true"
    assert (found["metadata"]["generation"], found["metadata"]["revision"]) == (1, 1)
    changed = await plane.apply(channel("reports", retention_s=60))
    assert changed["outcome"] == "verified"
    assert (await plane.rows("SELECT retention_s FROM channel"))[0]["retention_s"] == 60
    plan = await plane.call("changes.revert", change_id=changed["change_id"])
    assert plan["steps"][0]["changes"] == [{"path": "/spec/retention_s", "before": 60, "after": 604800}]
    back = await plane.commit(plan)
    await plane.settle()
    assert (await plane.call("changes.get", change_id=changed["change_id"]))["reverted_by"] == back["change_id"]
    assert (await plane.call("changes.get", change_id=back["change_id"]))["reverts"] == changed["change_id"]
    assert (await plane.call("channels.get", name="reports"))["spec"]["retention_s"] == 604800
    assert (await plane.delete("Channel", "reports"))["outcome"] == "verified"
    assert await plane.rows("SELECT * FROM channel") == []
    assert await reason(plane, "channels.get", name="reports") == "NOT_FOUND"


async def test_a_channel_of_before_there_were_bounds_gets_its_own(plane: Plane) -> None:
    """After an upgrade the sweep sets what its spec has always said."""
    await plane.apply(channel("old", attempts_max=7, backlog_messages_max=99))
    await plane.store.write(Unit().raw("UPDATE channel SET attempts_max = NULL, backlog_max = 10000", []))
    plane.now += 100
    await plane.settle()
    found = await plane.rows("SELECT attempts_max, backlog_max FROM channel")
    assert found == [{"attempts_max": 7, "backlog_max": 99}]


async def test_an_agent_is_made_and_gets_a_new_generation(plane: Plane) -> None:
    """An agent starts with a message, is Ready when its turn committed, and starts again with a new spec."""
    plan = await plane.propose(agent("echo"))
    assert plan["steps"][0]["action"] == "create"
    assert plan["claims"][0]["measure"] == "condition.Ready"
    assert plan["claims"][0]["verify_within_s"] == 30
    committed = await plane.commit(plan)
    await plane.settle(starts=False)
    found = await plane.call("agents.get", name="echo")
    assert {it["type"]: it["status"] for it in found["status"]["conditions"]} == {
        "Ready": "unknown",
        "Active": "false",
        "Parked": "false",
        "Stopped": "false",
    }
    assert found["status"]["inbox"] == 1
    assert plane.gate.heard == [("reload", found["metadata"]["uid"])]
    await plane.settle()
    assert (await plane.call("changes.get", change_id=committed["change_id"]))["outcome"] == "verified"
    second = await plane.apply(agent("echo", suspend_after_ms=5))
    assert second["outcome"] == "verified"
    assert plane.gate.heard[-1][0] == "reload"
    again = await plane.call("agents.get", name="echo")
    assert again["metadata"]["generation"] == 2
    assert again["metadata"]["uid"] == found["metadata"]["uid"]
    assert (await plane.delete("Agent", "echo"))["outcome"] == "verified"
    assert await plane.rows("SELECT * FROM agent") == []
    assert await plane.rows("SELECT * FROM inbox") == []
    third = await plane.apply(agent("echo"))
    assert third["outcome"] == "verified"
    assert (await plane.call("agents.get", name="echo"))["metadata"]["generation"] == 3


async def test_an_agent_that_does_not_start_misses_its_claim(plane: Plane) -> None:
    """A first turn that fails makes Ready false with its reason, and the claim is missed at its deadline."""
    committed = await plane.commit(await plane.propose(agent("broken")))
    await plane.settle(starts=False)
    await plane.finish_starts("failed", {"reason": "HANDLER_ERROR", "detail": "on purpose"})
    await plane.settle()
    ready = (await plane.call("agents.get", name="broken"))["status"]["conditions"][0]
    assert (ready["status"], ready["reason"], ready["message"]) == ("false", "HANDLER_ERROR", "on purpose")
    change = await plane.call("changes.get", change_id=committed["change_id"])
    assert change["outcome"] == "open"
    assert change["waits_on"][0]["reason"] == "CLAIM_OPEN"
    plane.now += 31
    await plane.settle()
    change = await plane.call("changes.get", change_id=committed["change_id"])
    assert (change["outcome"], change["done"]) == ("missed", True)
    assert change["claims"][0]["observed"] == "false"


async def test_on_miss_revert_takes_the_change_back_once(plane: Plane) -> None:
    """A missed change that was committed with on_miss revert is taken back by a change of the plane's."""
    committed = await plane.commit(await plane.propose(agent("broken")), on_miss="revert")
    await plane.settle(starts=False)
    await plane.finish_starts("failed", {"reason": "HANDLER_ERROR", "detail": "on purpose"})
    plane.now += 31
    await plane.settle()
    change = await plane.call("changes.get", change_id=committed["change_id"])
    assert change["outcome"] == "missed"
    back = await plane.call("changes.get", change_id=change["reverted_by"])
    assert (back["outcome"], back["principal"], back["on_miss"]) == ("verified", "steward", "keep")
    assert await reason(plane, "agents.get", name="broken") == "NOT_FOUND"
    assert len((await plane.call("changes.list"))["items"]) == 2


async def test_a_fleet_is_made_scaled_changed_and_taken_away(plane: Plane) -> None:
    """A fleet makes its agents, scales, rolls a new spec out, and takes everything with it."""
    assert (await plane.apply(fleet("zoo", 4)))["outcome"] == "verified"
    listed = (await plane.call("agents.list", labels={"part": "zoo"}))["items"]
    assert [it["metadata"]["name"] for it in listed] == [f"zoo-{n}" for n in range(4)]
    assert listed[0]["metadata"]["owner"] == {"kind": "Fleet", "namespace": "default", "name": "zoo"}
    assert (await plane.call("fleets.get", name="zoo"))["status"]["ready_replicas"] == 4
    smaller = await plane.apply(fleet("zoo", 1))
    assert smaller["outcome"] == "verified"
    assert len(await plane.rows("SELECT * FROM agent")) == 1
    plan = await plane.call("changes.revert", change_id=smaller["change_id"])
    await plane.commit(plan)
    await plane.settle()
    assert (await plane.call("fleets.get", name="zoo"))["status"]["ready_replicas"] == 4
    rolled = await plane.apply(fleet("zoo", 4, suspend_after_ms=7))
    assert rolled["outcome"] == "verified"
    assert {it["spec"]["suspend_after_ms"] for it in (await plane.call("agents.list"))["items"]} == {7}
    assert (await plane.delete("Fleet", "zoo"))["outcome"] == "verified"
    assert await plane.rows("SELECT * FROM agent") == []
    assert (await plane.call("agents.list"))["items"] == []


async def test_what_a_fleet_is_given_to_get_there_grows_with_the_agents_that_come_or_go(plane: Plane) -> None:
    """Taking many away takes as long as making them: the claim's time is predicted from how many there are."""

    async def within_s(*manifests: dict[str, Any]) -> float:
        found: float = (await plane.propose(*manifests))["claims"][0]["verify_within_s"]
        return found

    assert await within_s(fleet("zoo", 1000)) == 80
    await plane.apply(fleet("zoo", 8))
    assert [await within_s(fleet("zoo", n)) for n in (0, 8, 1000)] == [30.4, 30.4, 80]
    assert (await plane.call("fleets.delete", name="zoo"))["claims"][0]["verify_within_s"] == 30.4
    assert (await plane.apply(fleet("zoo", 0)))["outcome"] == "verified"


async def test_a_secret_goes_in_and_never_comes_out(plane: Plane) -> None:
    """No plan, event, record or answer holds a value; a kept value stays, and a revert brings the old one back."""
    made = await plane.apply(secret("db", password="hunter-one", user="me-myself"))
    assert made["outcome"] == "verified"
    found = await plane.call("secrets.get", name="db")
    assert found["spec"]["values"] == {"password": {"set": True}, "user": {"set": True}}
    changed = await plane.apply(secret("db", password="hunter-two", user={"set": True}))
    current = await plane.rows("SELECT spec FROM resource")
    plan = await plane.call("changes.revert", change_id=changed["change_id"])
    assert plan["steps"][0]["changes"] == [
        {"path": "/spec/values/password", "before": {"set": True}, "after": {"set": True}}
    ]
    await plane.commit(plan)
    await plane.settle()
    assert await plane.rows("SELECT spec FROM resource") != current
    same = await plane.propose(secret("db", password="hunter-one", user="me-myself"))
    assert same["steps"] == []
    assert await reason(plane, "resources.propose", manifests=[secret("db", other={"set": True})]) == (
        "SECRET_VALUE_MISSING"
    )
    await plane.delete("Secret", "db")
    dumped = await plane.dump()
    assert "hunter" not in dumped
    assert "myself" not in dumped


async def test_a_watched_channel_is_made_and_subscribed(plane: Plane) -> None:
    """A watch makes its channel, becomes a subscription, goes with the watch, and keeps the channel from deletion."""
    plan = await plane.propose(agent("late", watches=[{"channel": "news"}]))
    assert [(it["action"], it["target"]["kind"]) for it in plan["steps"]] == [
        ("create", "Channel"),
        ("create", "Agent"),
    ]
    assert plan["waits_on"] == []
    await plane.commit(plan)
    await plane.settle()
    assert len(await plane.rows("SELECT * FROM subscription")) == 1
    assert (await plane.call("channels.get", name="news"))["spec"]["ephemeral"] is True
    await plane.apply(channel("news"))
    assert (await plane.call("channels.get", name="news"))["spec"]["ephemeral"] is False
    assert [row["ephemeral"] for row in await plane.rows("SELECT ephemeral FROM channel")] == [0]
    await plane.apply(agent("early", watches=[{"channel": "news", "start": "beginning"}]))
    assert (await plane.call("channels.get", name="news"))["status"]["subscribers"] == ["default/early", "default/late"]
    assert await reason(plane, "channels.delete", name="news") == "IN_USE"
    await plane.apply(agent("early"), agent("late"))
    assert await plane.rows("SELECT * FROM subscription") == []
    await plane.delete("Channel", "news")


async def test_an_implied_channel_is_not_wanted_again(plane: Plane) -> None:
    """A plan that came too late is made anew without it, when somebody declared it meanwhile."""
    plan = await plane.propose(agent("a", watches=[{"channel": "news"}]))
    await plane.apply(channel("news", retention_s=77))
    late = await plane.call("plans.commit", plan_id=plan["plan_id"])
    assert late["outcome"] == "stale"
    await plane.commit(await plane.call("plans.get", plan_id=late["new_plan_id"]))
    assert (await plane.call("channels.get", name="news"))["spec"]["retention_s"] == 77


async def test_an_unused_ephemeral_channel_vanishes(plane: Plane) -> None:
    """With members or messages it stays; a declared one leaves its tombstone, one that its use made leaves nothing."""
    await plane.apply(channel("kept"), channel("declared", ephemeral=True), agent("a", watches=[{"channel": "read"}]))
    rows = made("channel_used", "default", "used", "test", plane.now)
    await plane.store.write(Unit().rows(rows))
    assert await vanishing.sweep(plane.store, plane.now + 30) == 0
    plane.now += 100
    assert await vanishing.sweep(plane.store, plane.now) == 2
    await plane.settle()
    assert await plane.rows("SELECT name FROM channel ORDER BY name") == [{"name": "kept"}, {"name": "read"}]
    left = await plane.rows("SELECT name FROM resource WHERE kind = 'Channel' AND deleted_at IS NOT NULL")
    assert left == [{"name": "declared"}]
    told = await plane.rows("SELECT name FROM event WHERE type = 'resource.deleted' ORDER BY name")
    assert told == [{"name": "declared"}, {"name": "used"}]
    await plane.apply(agent("a"))
    plane.now += 100
    assert await vanishing.sweep(plane.store, plane.now) == 1
    assert await plane.rows("SELECT * FROM membership") == []


async def test_a_secret_goes_after_the_connections_that_send_it(plane: Plane) -> None:
    """While one names it, it is IN_USE, and a plan that was made before is stale; a revert takes both at once."""
    sending = {"name": "db", "key": "password"}
    await plane.apply(secret("db", password="hunter2"), connection("other", secret={**sending, "name": "db-2"}))
    early = await plane.call("secrets.delete", name="db")
    made = await plane.apply(connection("far", secret=sending))
    assert (await plane.answer("plans.commit", {"plan_id": early["plan_id"]})).model_dump()["outcome"] == "stale"
    with pytest.raises(Refusal) as refused:
        await plane.call("secrets.delete", name="db")
    found = refused.value.problem
    assert (found.reason, found.metadata["connections"]) == ("IN_USE", ["far"])
    assert (await plane.call(found.next[0].operation, **found.next[0].arguments))["metadata"]["name"] == "far"
    await plane.commit(await plane.call("changes.revert", change_id=made["change_id"]))
    await plane.settle()
    both = await plane.apply(secret("api", token="a"), connection("api", secret={"name": "api", "key": "token"}))
    await plane.commit(await plane.call("changes.revert", change_id=both["change_id"]))
    await plane.settle()
    assert await reason(plane, "secrets.get", name="api") == "NOT_FOUND"
    await plane.delete("Secret", "db")


async def test_a_connection_goes_at_once_whoever_was_granted_it(plane: Plane) -> None:
    """A grant is a permission and rests on nothing: deleting the connection is how agents are cut off from it."""
    grants = [{"effect": "http.request", "connection": "far"}]
    await plane.apply(connection("far"), agent("echo", mandate={"grants": grants}))
    assert (await plane.delete("Connection", "far"))["outcome"] == "verified"


async def test_a_connection_goes_after_what_uses_it(plane: Plane) -> None:
    """A route that polls or calls it, a model that is asked over it or has a tool of it; a plan of before is stale."""
    await plane.apply(channel("readings"), connection("far"), connection("model", protocol="llm"))
    early = await plane.call("connections.delete", name="far")
    calls = route("out", sink={"effect": "http.request", "connection": "far"})
    asked = "SELECT n, id FROM t WHERE n >= :cursor ORDER BY n"
    poll = {"connection": "db", "statement": asked, "cursor": "n", "id": "id", "begin": 0}
    polls = route("in", source={"poll": poll})
    made = await plane.apply(calls, polls, connection("db", protocol="sql", endpoint="sqlite:///x.db"))
    assert (await plane.answer("plans.commit", {"plan_id": early["plan_id"]})).model_dump()["outcome"] == "stale"
    tools = [{"name": "get", "effect": "http.request", "connection": "far"}]
    grants = [{"effect": "llm.request", "connection": "model"}]
    llm = {"connection": "model", "model": "m", "tools": tools}
    spec = {"runtime": "llm", "llm": llm, "mandate": {"grants": grants}}
    many = {"kind": "Fleet", "metadata": {"name": "crew"}, "spec": {"replicas": 1, "template": {"spec": spec}}}
    await plane.apply({"kind": "Agent", "metadata": {"name": "bot"}, "spec": spec}, many)
    for name, users in {
        "far": ["Agent/bot", "Fleet/crew", "Route/out"], "model": ["Agent/bot", "Fleet/crew"], "db": ["Route/in"]
    }.items():  # fmt: skip
        with pytest.raises(Refusal) as refused:
            await plane.call("connections.delete", name=name)
        found = refused.value.problem
        assert (found.reason, found.metadata["users"]) == ("IN_USE", users)
        step = found.next[0]
        assert (await plane.call(step.operation, **step.arguments))["metadata"]["name"] in users[0]
    for kind, name in (("Agent", "bot"), ("Fleet", "crew")):
        await plane.delete(kind, name)
    await plane.commit(await plane.call("changes.revert", change_id=made["change_id"]))
    await plane.settle()
    for name in ("far", "model"):
        await plane.delete("Connection", name)


async def test_what_belongs_to_a_fleet_is_changed_by_the_fleet(plane: Plane) -> None:
    """Agents of a fleet, and names that it will take, are OWNED; a fleet does not take others' agents."""
    await plane.apply(fleet("zoo", 2))
    assert await reason(plane, "agents.delete", name="zoo-0") == "OWNED"
    assert await reason(plane, "agents.propose", manifest=agent("zoo-1")) == "OWNED"
    await plane.apply(agent("zoo-2"), agent("pen-0"))
    assert await reason(plane, "fleets.propose", manifest=fleet("zoo", 3)) == "OWNED"
    assert await reason(plane, "fleets.propose", manifest=fleet("pen", 1)) == "OWNED"


async def test_a_proposal_is_refused_where_it_can_not_be(plane: Plane) -> None:
    """Bad code, absent code, duplicates, absent targets and too many agents are refused with their place."""
    bad = agent("x")
    bad["spec"]["code"]["files"]["echo.py"] = "class ("
    absent = agent("x")
    absent["spec"]["code"] = {"digest": "sha256:" + "0" * 64}
    assert await reason(plane, "agents.propose", manifest=bad) == "INVALID_CODE"
    assert await reason(plane, "agents.propose", manifest=absent) == "CODE_NOT_FOUND"
    assert await reason(plane, "agents.propose", manifest=agent("x", entrypoint="echo:No")) == "INVALID_CODE"
    assert await reason(plane, "resources.propose", manifests=[agent("x"), agent("x")]) == "DUPLICATE_MANIFEST"
    assert await reason(plane, "agents.delete", name="nobody") == "NOT_FOUND"
    assert await reason(plane, "fleets.propose", manifest=fleet("big", 2_000)) == "QUOTA"
    assert await reason(plane, "fleets.propose", manifest=fleet("b" * 62, 2)) == "INVALID_NAME"
    schema = channel("x", dataschema={"type": "no-such"})
    assert await reason(plane, "channels.propose", manifest=schema) == "INVALID_VALUE"


async def test_an_agent_is_confined_only_where_it_can_be(plane: Plane) -> None:
    """Where the system lacks something, a proposal and a commit say what, with the place; a fleet's template too."""
    lacking: list[str] = []
    unconfined = lambda: lacking[0] if lacking else None  # noqa: E731
    object.__setattr__(plane.proposer, "unconfined", unconfined)
    plan = await plane.propose(agent("x", isolation="confined"))
    lacking.append("it takes what this system has not")
    assert await reason(plane, "plans.commit", plan_id=plan["plan_id"]) == "NO_CONFINEMENT"
    with pytest.raises(Refusal) as refusal:
        await plane.propose(channel("fine"), fleet("zoo", 1, isolation="confined"))
    problem = refusal.value.problem
    assert (problem.reason, problem.field) == ("NO_CONFINEMENT", "/manifests/1/spec/template/spec/isolation")
    assert problem.detail == "no agent can be confined here: it takes what this system has not"
    assert [it.operation for it in problem.next] == ["system.status"]
    lacking.clear()
    assert (await plane.apply(agent("x", isolation="confined")))["outcome"] == "verified"


async def test_an_effect_that_is_detached_is_refused(plane: Plane) -> None:
    """Nothing does that: who asks for it is told what there is, of an agent and of a fleet's template."""
    for manifest, field in (
        (agent("x", on_hold="detach"), "/manifests/0/spec/on_hold"),
        (fleet("zoo", 1, on_hold="detach"), "/manifests/0/spec/template/spec/on_hold"),
    ):
        with pytest.raises(Refusal) as refusal:
            await plane.propose(manifest)
        problem = refusal.value.problem
        assert (problem.reason, problem.field) == ("INVALID_VALUE", field)
        assert problem.metadata == {"on_hold": "detach", "instead": ["park", "raise"]}
    assert (await plane.apply(agent("x", on_hold="raise")))["outcome"] == "verified"


async def test_resources_that_ray_refuses_are_refused_and_stored_ones_are_shown(plane: Plane) -> None:
    """With their place, also in a fleet's template; what was declared before is read as it is, and can be mended."""
    own = {"isolation": "dedicated"}
    bad = agent("x", **own, resources={"custom": {"CPU": 1}})
    template = fleet("f", 1, **own, resources={"num_gpus": 1.5})
    assert await place(plane, bad) == "/manifests/0/spec/resources/custom/CPU"
    assert await place(plane, channel("fine"), template) == "/manifests/1/spec/template/spec/resources/num_gpus"
    assert await reason(plane, "agents.propose", manifest=bad) == "INVALID_VALUE"
    fine = {"num_cpus": 1.5, "num_gpus": 0.25, "custom": {"licence": 0.5}}
    assert (await plane.apply(agent("x", **own, resources=fine)))["outcome"] == "verified"
    stored = "UPDATE resource SET spec = REPLACE(spec, '\"licence\"', '\"GPU\"') WHERE name = 'x'"
    assert await plane.store.write(Unit().raw(stored, [], 1))
    for shown in ((await plane.call("agents.list"))["items"][0], await plane.call("agents.get", name="x")):
        assert shown["spec"]["resources"]["custom"] == {"GPU": 0.5}
    assert (await plane.apply(agent("x", **own, resources={"num_cpus": 1})))["outcome"] == "verified"


async def place(plane: Plane, *manifests: dict[str, Any]) -> str | None:
    with pytest.raises(Refusal) as refusal:
        await plane.propose(*manifests)
    return refusal.value.problem.field


async def test_what_the_world_refuses_is_told_with_its_place(plane: Plane) -> None:
    """A refusal that comes from what is recorded points into the input as well."""
    await plane.apply(fleet("zoo", 1))
    absent = agent("x")
    absent["spec"]["code"] = {"digest": "sha256:" + "0" * 64}
    template = fleet("f", 1)
    template["spec"]["template"]["spec"]["entrypoint"] = "echo:No"
    fine = channel("fine")
    assert await place(plane, fine, agent("zoo-0")) == "/manifests/1/metadata/name"
    assert await place(plane, fine, absent) == "/manifests/1/spec/code/digest"
    assert await place(plane, fine, template) == "/manifests/1/spec/template/spec/entrypoint"
    assert await place(plane, secret("s", key={"set": True})) == "/manifests/0/spec/values/key"
    assert await place(plane, fine, fine) == "/manifests/1/metadata/name"


async def test_a_budget_in_another_currency_than_the_rates_is_refused(plane: Plane) -> None:
    """Nothing converts; its own currency may be named, and is kept."""
    told = budget("dollars")
    told["spec"] |= {"currency": "USD", "limits": {"money": 5}}
    with pytest.raises(Refusal) as refused:
        await plane.propose(told)
    found = refused.value.problem
    assert (found.reason, found.field) == ("INVALID_VALUE", "/manifests/0/spec/currency")
    assert found.metadata == {"wanted": "USD", "currency": "EUR"}
    told["spec"]["currency"] = "EUR"
    assert (await plane.commit(await plane.propose(told)))["outcome"] == "committed"
    assert (await plane.call("budgets.get", name="dollars"))["spec"]["currency"] == "EUR"


async def test_the_mode_of_a_channel_stays(plane: Plane) -> None:
    """A queue does not become a broadcast; what else it goes by may change, and does."""
    await plane.apply(channel("work", mode="queue"))
    assert await reason(plane, "channels.propose", manifest=channel("work")) == "INVALID_VALUE"
    bounds = {"backlog_messages_max": 7, "attempts_max": 2, "in_flight_max": 3}
    changed = await plane.apply(channel("work", mode="queue", **bounds))
    assert changed["outcome"] == "verified"
    assert await plane.rows("SELECT mode, backlog_max, attempts_max, in_flight_max FROM channel") == [
        {"mode": "queue", "backlog_max": 7, "attempts_max": 2, "in_flight_max": 3}
    ]
