"""Agents live: they answer, wait, sleep, tick, spawn, fail and are suspended, through a whole installation."""

import time
from collections.abc import Callable
from typing import Any

from tests.end_to_end.agents import agent, channel
from tests.stack import Stack


def until(condition: Callable[[], Any], timeout_s: float = 20) -> Any:
    """The first truthy answer, polled."""
    limit = time.monotonic() + timeout_s
    while time.monotonic() < limit:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError("it did not come true in time")


def condition(stack: Stack, name: str, which: str) -> dict[str, Any]:
    found = stack.call("agents.get", name=name)["status"]["conditions"]
    return next(it for it in found if it["type"] == which)


def ask(stack: Stack, name: str, data: Any) -> Any:
    answer = stack.call("agents.ask", name=name, data=data, timeout_s=30)
    assert answer["answered"], answer
    return answer["reply"]


def test_an_agent_keeps_its_state_over_suspensions(stack: Stack) -> None:
    """An idle agent is suspended, a message wakes it, and nothing of its state is lost, three times over."""
    change = stack.apply(agent("counter", "Counter"))
    assert change["outcome"] == "verified", change
    for turn in (1, 2, 3):
        assert ask(stack, "counter", "hi") == {"seen": turn, "got": "hi"}
        until(lambda: condition(stack, "counter", "Active")["status"] == "false")
        inside = stack.call("agents.inspect", name="counter")
        assert inside["host"] is None
        assert inside["state"]["seen"] == turn


def test_an_ask_parks_the_turn_and_is_answered(stack: Stack) -> None:
    """An agent that asks another gets the answer in the same turn."""
    stack.apply(agent("echo", "Echo"), agent("asker", "Asker"))
    assert ask(stack, "asker", {"whom": "echo", "what": {"x": 1}}) == {"answer": {"x": 1}, "asked": 1}


def test_a_request_is_answered_to_on_reply(stack: Stack) -> None:
    """A request does not park; its answer comes to on_reply."""
    stack.apply(agent("echo", "Echo"), agent("requester", "Requester"))
    assert ask(stack, "requester", None) == "requested"
    until(lambda: stack.call("agents.inspect", name="requester")["state"]["replies"] == [{"n": 1}])


def test_a_timer_ticks_and_lets_the_agent_sleep(stack: Stack) -> None:
    """A timer of an agent fires again and again."""
    stack.apply(agent("ticker", "Ticker", suspend_after_ms=50))
    until(lambda: stack.call("agents.inspect", name="ticker")["state"]["ticks"] >= 4)
    stack.call("agents.stop", name="ticker")


def test_an_effect_is_granted_by_the_mandate_only(stack: Stack) -> None:
    """machine.read works when granted, and is denied with a reason when not; both stand in the journal."""
    stack.apply(agent("allowed", "Reader", grants=["machine.read"]), agent("denied", "Reader"))
    reading = ask(stack, "allowed", None)
    assert 0 <= reading["cpu"] <= 100
    with stack.rest() as client:
        answer = client.post("/v1/agents/default/denied/ask", json={"timeout_s": 30})
    assert answer.status_code == 502, answer.text
    assert "NOT_GRANTED" in answer.text
    turn = stack.call("turns.list", name="allowed")["items"][0]
    journal = stack.call("turns.get", turn_id=turn["turn_id"])["journal"]
    assert [entry["kind"] for entry in journal] == ["effect", "sleep"]


def test_what_a_turn_sends_arrives_once_and_in_order(stack: Stack) -> None:
    """Sends and publishes of turns are delivered once each, in their order."""
    stack.apply(channel("e2e-log"))
    stack.apply(agent("forwarder", "Forwarder"), agent("collector", "Collector"))
    for n in range(20):
        stack.call("agents.send", name="forwarder", data={"n": n})
    until(lambda: len(ask(stack, "collector", "list")) == 20)
    assert ask(stack, "collector", "list") == list(range(20))
    read = stack.call("channels.read", name="e2e-log")
    assert [it["data"]["n"] for it in read["envelopes"]] == list(range(20))


def test_an_agent_spawns_another(stack: Stack) -> None:
    """A spawned agent is a resource like any other, and answers."""
    stack.apply(agent("parent", "Parent"))
    assert ask(stack, "parent", {"child": "child-1"}) == "spawned"
    until(lambda: condition(stack, "child-1", "Ready")["status"] == "true")
    assert ask(stack, "child-1", 7) == 7


def test_a_failing_turn_ends_in_the_dead_letters(stack: Stack) -> None:
    """A handler that raises is retried, then its message is put aside with the reason, and the agent goes on."""
    stack.apply(agent("broken", "Broken"))
    with stack.rest() as client:
        answer = client.post("/v1/agents/default/broken/ask", json={"timeout_s": 60})
    assert answer.status_code == 502, answer.text
    assert answer.json()["reason"] == "TURN_FAILED"
    letters = stack.call("agents.inspect", name="broken")["dead_letters"]
    assert letters[0]["reason"] == "HANDLER_ERROR"
    assert "on purpose" in letters[0]["detail"]


def test_only_wake_ends_a_stop(stack: Stack) -> None:
    """A stopped agent keeps its messages and handles them after wake."""
    stack.apply(agent("halted", "Counter"))
    stack.call("agents.stop", name="halted")
    stack.call("agents.send", name="halted", data="waits")
    assert condition(stack, "halted", "Stopped")["status"] == "true"
    assert stack.call("agents.inspect", name="halted")["inbox"] == 1
    stack.call("agents.wake", name="halted")
    until(lambda: stack.call("agents.inspect", name="halted")["state"]["seen"] == 1)


def test_a_fleet_is_made_scaled_and_taken_away(stack: Stack) -> None:
    """A fleet makes its agents, scales down, and a revert brings them back."""
    spec = agent("x", "Echo")["spec"]
    fleet = {
        "kind": "Fleet",
        "metadata": {"name": "zoo"},
        "spec": {"replicas": 4, "template": {"labels": {"part": "zoo"}, "spec": spec}},
    }
    assert stack.apply(fleet)["outcome"] == "verified"
    listed = stack.call("agents.list", namespace="default", labels={"part": "zoo"})["items"]
    assert [it["metadata"]["name"] for it in listed] == [f"zoo-{n}" for n in range(4)]
    assert ask(stack, "zoo-3", "hi") == "hi"
    fleet["spec"]["replicas"] = 1  # type: ignore[index]
    change = stack.apply(fleet)
    assert change["outcome"] == "verified"
    assert len(stack.call("agents.list", labels={"part": "zoo"})["items"]) == 1
    plan = stack.call("changes.revert", change_id=change["change_id"])
    back = stack.call("plans.commit", plan_id=plan["plan_id"])
    until(lambda: stack.call("changes.get", change_id=back["change_id"])["outcome"] == "verified", 60)
    assert stack.call("fleets.get", name="zoo")["status"]["ready_replicas"] == 4


def ray_says(stack: Stack, of: str) -> list[dict[str, Any]]:
    """What Ray's own state API says of `actors` or `nodes`."""
    import httpx

    url = stack.call("system.status")["ray_dashboard"] + f"/api/v0/{of}?detail=1&limit=1000"
    token = (stack.data / "ray.token").read_text().strip()
    answer = httpx.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=20)
    assert answer.status_code == 200, answer.text
    rows: list[dict[str, Any]] = answer.json()["data"]["result"]["result"]
    return rows


def actors(stack: Stack) -> dict[str, dict[str, Any]]:
    """What Ray's dashboard says of our actors, by name."""
    return {row["name"]: row for row in ray_says(stack, "actors")}


def differences(stack: Stack) -> list[str]:
    """What `hosts.list` and `nodes.list` say, and Ray does not; and what Ray says, and they do not."""
    alive = {name: it for name, it in actors(stack).items() if it["state"] != "DEAD"}
    listed = {}
    for host in stack.call("hosts.list")["items"]:
        listed[f"{'agent/' + host['agent'] if host['agent'] else 'host'}/{host['host_id']}"] = host
    found = [f"{it} is no actor of Ray's" for it in listed.keys() - alive.keys()]
    theirs = {it for it in alive if it.startswith(("host/", "agent/"))}
    found += [f"{it} is not listed" for it in theirs - listed.keys()]
    nodes = {it["node"]: it for it in stack.call("nodes.list")["items"]}
    for name in theirs & listed.keys():
        host, actor = listed[name], alive[name]
        if host["state"] == "serving" and (actor["state"], actor["pid"]) != ("ALIVE", host["pid"]):
            found.append(f"{name} is {actor['state']} with pid {actor['pid']}, and listed with {host['pid']}")
        if actor["node_id"] not in (None, *nodes[host["node"]]["ray_node_ids"]):
            found.append(f"{name} is on {actor['node_id']}, and listed on {host['node']}")
    rows = {it["node_id"]: it for it in ray_says(stack, "nodes")}
    if set(rows) != {it for node in nodes.values() for it in node["ray_node_ids"]}:
        found.append(f"nodes: {sorted(rows)}")
    for node in nodes.values():
        own = [rows[it] for it in node["ray_node_ids"] if it in rows]
        if node["alive"] != any(it["state"] == "ALIVE" for it in own):
            found.append(f"{node['node']} is listed as alive: {node['alive']}")
        there = [it["resources_total"] for it in own if it["state"] == "ALIVE"]
        said = {kind: n for it in there for kind, n in it.items() if not kind.startswith("node:")}
        if node["alive"] and _numbers(said) != _numbers(node["resources"]):
            found.append(f"{node['node']} has {said}, and is listed with {node['resources']}")
    return found


def _numbers(resources: dict[str, Any]) -> dict[str, Any]:
    """Without memory, which the state API writes in words."""
    return {kind: n for kind, n in resources.items() if "memory" not in kind}


def agree(stack: Stack) -> None:
    """Both say the same, when what has just happened has come to both."""
    limit = time.monotonic() + 20
    while found := differences(stack):
        assert time.monotonic() < limit, found
        time.sleep(0.1)


def test_hosts_are_seen_by_name_in_the_dashboard(stack: Stack) -> None:
    """Ray's dashboard lists our hosts as actors by their names."""
    stack.apply(agent("echo", "Echo"))
    ask(stack, "echo", 1)
    found, hosts = actors(stack), [it for it in stack.call("hosts.list")["items"] if it["agent"] is None]
    assert {f"host/{it['host_id']}" for it in hosts if it["state"] != "lost"} <= set(found)
    serving = [it for it in hosts if it["state"] == "serving"]
    assert serving
    for host in serving:
        actor = found[f"host/{host['host_id']}"]
        assert actor["state"] == "ALIVE"
        assert host["namespace"] in actor["repr_name"]
        assert host["digest"][:15] in actor["repr_name"]


def test_nodes_are_what_ray_says(stack: Stack) -> None:
    """One node, alive, with Ray's own id and resources, and the hosts that are listed, and no other."""
    stack.apply(agent("echo", "Echo"))
    ask(stack, "echo", 1)
    agree(stack)
    (node,) = stack.call("nodes.list")["items"]
    assert (node["alive"], node["draining"]) == (True, False)
    assert node["resources"]["CPU"] > 0
    assert {it["node"] for it in stack.call("hosts.list")["items"]} == {node["node"]}
