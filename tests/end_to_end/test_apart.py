"""Agents with a process of their own: what Ray keeps for it, and what is left of it while the agent sleeps."""

import os
from typing import Any

import psutil
import pytest

from ray_runtime.confinement.start import why_not
from tests.end_to_end.agents import agent
from tests.end_to_end.test_living import actors, ask, until
from tests.stack import Stack

WHY_NOT = why_not(2_002_000_000)
needs_confinement = pytest.mark.skipif(WHY_NOT is not None, reason=f"nothing can be confined here: {WHY_NOT}")
SOURCE = """
import os

from pydantic import BaseModel
from ray_runtime import Agent, Turn


class Told(BaseModel):
    seen: int = 0


class Where(Agent):
    state: Told

    async def on_message(self, turn: Turn, envelope):
        self.state.seen += 1
        where = {"pid": os.getpid(), "uid": os.getuid(), "place": os.environ.get("PLACE"), "seen": self.state.seen}
        if envelope.data is not None:
            await turn.perform("machine.read", what="cpu")
            where["there"] = os.path.exists(envelope.data)
        return where
"""


def where(name: str, **spec: Any) -> dict[str, Any]:
    return agent(name, "Where", code={"files": {"where.py": SOURCE}}, entrypoint="where:Where", **spec)


def hosts_of(stack: Stack, name: str) -> list[dict[str, Any]]:
    return [it for it in stack.call("hosts.list")["items"] if it["agent"] == f"default/{name}"]


def test_an_agent_apart_has_a_process_of_its_own_for_as_long_as_it_is_awake(stack: Stack) -> None:
    """Nobody else is on it, its variables are set, it ends with a suspension, and the state goes on in the next one."""
    own = {"isolation": "dedicated", "resources": {"num_cpus": 1}, "environment": {"PLACE": "apart"}}
    stack.apply(where("apart", suspend_after_ms=60_000, **own), where("beside", suspend_after_ms=60_000))
    first, beside = ask(stack, "apart", None), ask(stack, "beside", None)
    assert (first["place"], beside["place"]) == ("apart", None)
    assert first["pid"] != beside["pid"]
    (host,) = hosts_of(stack, "apart")
    assert (host["pid"], host["agents"], host["state"]) == (first["pid"], 1, "serving")
    actor = actors(stack)[f"agent/default/apart/{host['host_id']}"]
    assert (actor["pid"], actor["required_resources"]) == (host["pid"], {"CPU": 1.0})
    stack.call("agents.suspend", name="apart")
    until(lambda: not psutil.pid_exists(first["pid"]))
    assert hosts_of(stack, "apart") == []
    second = ask(stack, "apart", None)
    assert (second["seen"], second["place"]) == (2, "apart")
    assert second["pid"] != first["pid"]


@needs_confinement
def test_a_confined_agent_is_supervised_by_ray(stack: Stack) -> None:
    """Its uid is its own, its effects are enforced; it ends with its actor, comes again, and ends with a suspension."""
    own = {"isolation": "confined", "environment": {"PLACE": "inside"}}
    assert stack.call("system.status")["confinement"] == "possible"
    manifest = where("inmate", suspend_after_ms=60_000, **own)
    manifest["spec"]["mandate"]["grants"] = [{"effect": "machine.read"}]
    stack.apply(manifest)
    first = ask(stack, "inmate", str(stack.data))
    assert (first["place"], first["there"], first["seen"]) == ("inside", False, 1)
    assert first["uid"] != os.getuid()
    turn = stack.call("turns.list", name="inmate")["items"][0]
    (effect,) = stack.call("turns.get", turn_id=turn["turn_id"])["journal"]
    assert effect["verdict"]["containment"] == "enforced"
    (host,) = hosts_of(stack, "inmate")
    assert psutil.Process(host["pid"]).uids().real == first["uid"]
    actor = actors(stack)[f"agent/default/inmate/{host['host_id']}"]
    assert actor["pid"] in [it.pid for it in psutil.Process(host["pid"]).parents()]
    os.kill(actor["pid"], 9)
    second = ask(stack, "inmate", None)
    assert (second["seen"], second["place"]) == (2, "inside")
    until(lambda: not psutil.pid_exists(host["pid"]))
    (host,) = hosts_of(stack, "inmate")
    stack.call("agents.suspend", name="inmate")
    until(lambda: not psutil.pid_exists(host["pid"]))
    until(lambda: hosts_of(stack, "inmate") == [])


def test_a_gate_that_dies_knows_again_whose_a_host_is(stack: Stack) -> None:
    """kill -9 of the gate: the agent goes on with its state, alone on its host as before."""
    stack.apply(where("kept", isolation="dedicated", suspend_after_ms=60_000), where("other", suspend_after_ms=60_000))
    assert ask(stack, "kept", None)["seen"] == 1
    gate = next(it for it in stack.call("system.status")["processes"] if it["name"] == "gate")
    os.kill(gate["pid"], 9)
    kept, other = ask(stack, "kept", None), ask(stack, "other", None)
    assert (kept["seen"], other["seen"]) == (2, 1)
    (host,) = hosts_of(stack, "kept")
    assert (host["pid"], host["agents"]) == (kept["pid"], 1)
    assert other["pid"] != kept["pid"]


def test_what_no_node_has_is_said_and_can_be_given_up(stack: Stack) -> None:
    """An agent that needs what there is not waits, with what Ray says of it; without the need it goes on at once.

    A confined one may need labels, too.
    """
    own = {"isolation": "confined"} if WHY_NOT is None else {"isolation": "dedicated"}
    stack.apply(
        where("needy", isolation="dedicated", resources={"custom": {"quantum": 1}}),
        where("penned", resources={"labels": {"zone": "nowhere"}}, **own),
    )
    for name in ("needy", "penned"):
        stack.call("agents.send", name=name, data=None)
    for name in ("needy", "penned"):
        said = until(lambda name=name: _why(stack, name), 60)  # type: ignore[misc]
        assert said.startswith("it waits for a host of its own; Ray says: ")
    stack.apply(where("needless"))
    assert ask(stack, "needless", None)["seen"] == 1
    stack.apply(where("needy"), where("penned", **own))
    for name in ("needy", "penned"):
        assert ask(stack, name, None)["seen"] == 2


def _why(stack: Stack, name: str) -> str | None:
    found: str | None = stack.call("agents.inspect", name=name)["why_awake"]
    return found if found is not None and "Ray says" in found else None


@pytest.mark.parametrize(
    "spec",
    [
        {"resources": {"num_cpus": 1}},
        {"environment": {"PLACE": "shared"}},
        {"isolation": "dedicated", "environment": {"RAY_ADDRESS": "elsewhere"}},
        {"isolation": "dedicated", "environment": {"with blank": "x"}},
        {"isolation": "dedicated", "resources": {"custom": {"quantum": 0}}},
    ],
)
def test_what_does_not_go_together_is_refused(stack: Stack, spec: dict[str, Any]) -> None:
    """Resources and variables are those of a process of one's own, and how a host is run is nobody's to say."""
    with stack.rest() as client:
        answer = client.post("/v1/agents/propose", json={"manifest": where("refused", **spec)})
    assert answer.status_code == 422, answer.text
