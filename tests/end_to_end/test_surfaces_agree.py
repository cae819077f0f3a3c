"""The same input gives the same output on every surface, and the same bad input the same Problem.

Walks the catalogue: an operation without a case here fails the test. What acts is repeated under one
request id, so that its first answer must come back from every surface: that is its idempotence too.
"""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import httpx2
import pytest
from anyio.from_thread import start_blocking_portal
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from typer.testing import CliRunner

from controlplane.cli.main import app
from controlplane.resources.catalogue import OPERATIONS
from controlplane.resources.operation import Operation
from tests.conftest import SOAK
from tests.end_to_end.agents import agent, channel
from tests.gate.mcp_far import Far, serving
from tests.stack import STEWARD, Stack

NAMED = {"namespace": "default", "name": "same-echo"}
CHANNEL = {"namespace": "default", "name": "same-reports"}
# What is of the moment, or of the call.
VOLATILE = {"as_of", "instance", "lease_until", "loop_lag_ms", "rss_bytes", "expires_at", "cursor", "since"}
# Whose command is a process of its own in every run; of the others in a soak.
OWN_PROCESS = {"agents.ask", "agents.propose", "channels.read", "system.status"}
CALL: dict[str, Callable[..., Any]] = {}  # a tool, at each endpoint of MCP
# What counts or shows what goes on meanwhile.
MOVING = {
    "system.status",
    "system.brief",
    "system.doctor",
    "hosts.list",
    "nodes.list",
    "feedback.read",
    "changes.list",
    "turns.list",
}


def _breaks_off(listening: socket.socket) -> None:
    """A far side that takes a request and says nothing."""
    with contextlib.suppress(OSError):
        while True:
            taken, _ = listening.accept()
            taken.recv(65_536)
            taken.close()


def _held(stack: Stack) -> str:
    """The turn of an effect in doubt."""
    grants = [{"effect": "http.request", "connection": "same-near"}]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=_breaks_off, args=(listening,), daemon=True).start()
        near = {"protocol": "http", "endpoint": f"http://127.0.0.1:{listening.getsockname()[1]}",
                "options": {"allow_private": True}}  # fmt: skip
        stack.apply(
            agent("same-caller", "Caller", mandate={"grants": grants}),
            {"kind": "Connection", "metadata": {"name": "same-near"}, "spec": near},
        )
        stack.call("agents.send", name="same-caller", data="same-near")
        limit = time.monotonic() + 30
        while not (found := stack.call("agents.inspect", name="same-caller"))["waiting_on"]:
            assert time.monotonic() < limit, "nothing was held"
            time.sleep(0.05)
    assert found["waiting_on"][0]["kind"] == "effect"
    parked = [
        it for it in stack.call("agents.get", name="same-caller")["status"]["conditions"] if it["type"] == "Parked"
    ]
    assert (parked[0]["status"], parked[0]["reason"]) == ("true", "Effect"), parked
    return str(found["running"])


def _host(stack: Stack) -> str:
    """A host that nobody misses for long."""
    hosts = stack.call("hosts.list")["items"]
    return str(min(hosts, key=lambda it: it["state"] != "warm")["host_id"])


@pytest.fixture(scope="module")
def ids(stack: Stack) -> dict[str, str]:
    """A small world, and the ids of its records."""
    change = stack.apply(
        agent("same-echo", "Echo", suspend_after_ms=0),
        channel("same-reports"),
        {"kind": "Fleet", "metadata": {"name": "same-fleet"},
         "spec": {"replicas": 1, "template": {"spec": agent("x", "Echo")["spec"]}}},
        {"kind": "Secret", "metadata": {"name": "same-secret"}, "spec": {"values": {"k": "v"}}},
        {"kind": "Connection", "metadata": {"name": "same-far"},
         "spec": {"protocol": "http", "endpoint": "https://far.example.com"}},
        {"kind": "Budget", "metadata": {"name": "same-budget"}, "spec": {"limits": {"tokens_out": 1000}}},
        {"kind": "Route", "metadata": {"name": "same-route"},
         "spec": {"source": {"events": {"types": ["no.*"]}}, "sink": {"agent": "same-echo"}}},
    )  # fmt: skip
    message_id = stack.call("agents.ask", **NAMED, data=1)["message_id"]
    turn = stack.call("turns.list", **NAMED)["items"][0]
    token = stack.call("tokens.create", principal="throwaway", role="viewer")
    return {
        "change_id": change["change_id"],
        "plan_id": change["plan_id"],
        "turn_id": turn["turn_id"],
        "token_id": token["token_id"],
        "held_turn_id": _held(stack),
        "host_id": _host(stack),
        "question_id": _asked(stack),
        "invitation_id": stack.call("invitations.create", name="same-echo", to_namespace="guests")["invitation_id"],
        "tool_digest": _offered(stack),
        "delayed_id": stack.call("agents.send", **NAMED, data=1, delay_s=86_400)["message_id"],
        "message_id": message_id,
    }


def _offered(stack: Stack) -> str:
    """The digest of a tool that a server offered, which has gone since."""
    far, seen, gone = Far(), threading.Event(), threading.Event()

    async def serve() -> None:
        async with serving(far):
            seen.set()
            await asyncio.to_thread(gone.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert seen.wait(30)
        spec = {"protocol": "mcp", "endpoint": far.url, "options": {"allow_private": True}}
        stack.apply({"kind": "Connection", "metadata": {"name": "same-shop"}, "spec": spec})
        return str(stack.call("connections.tools", name="same-shop")["items"][0]["digest"])
    finally:
        gone.set()
        thread.join()


def _asked(stack: Stack) -> str:
    """A question to a person, of a turn that waits for it."""
    stack.apply(agent("same-person", "Person", suspend_after_ms=0))
    stack.call("agents.send", name="same-person", data=["yes", "no"])
    limit = time.monotonic() + 30
    while not (found := stack.call("questions.list", agent="same-person")["items"]):
        assert time.monotonic() < limit, "nothing was asked"
        time.sleep(0.05)
    return str(found[0]["question_id"])


def cases(ids: dict[str, str]) -> dict[str, dict[str, Any]]:
    """An input for every operation."""
    manifests = {
        "budgets": {"kind": "Budget", "metadata": {"name": "same-budget"}, "spec": {"limits": {"money": 0.5}}},
        "agents": agent("same-echo", "Echo"),
        "routes": {"kind": "Route", "metadata": {"name": "same-route"},
                   "spec": {"source": {"events": {}}, "sink": {"agent": "same-echo"}, "filter": "1 > 0"}},
        "channels": channel("same-other"),
        "connections": {"kind": "Connection", "metadata": {"name": "same-far"},
                        "spec": {"protocol": "http", "endpoint": "https://far.example.com/v2"}},
        "fleets": {"kind": "Fleet", "metadata": {"name": "same-fleet"},
                   "spec": {"replicas": 2, "template": {"spec": agent("x", "Echo")["spec"]}}},
        "secrets": {"kind": "Secret", "metadata": {"name": "same-secret"}, "spec": {"values": {"k": {"set": True}}}},
    }  # fmt: skip
    names = {
        "agents": "same-echo", "channels": "same-reports", "connections": "same-far", "fleets": "same-fleet",
        "secrets": "same-secret", "budgets": "same-budget", "routes": "same-route",
    }  # fmt: skip
    found: dict[str, dict[str, Any]] = {}
    for kind, name in names.items():
        found[f"{kind}.get"] = found[f"{kind}.delete"] = {"namespace": "default", "name": name}
        found[f"{kind}.list"] = {"namespace": "default", "limit": 2}
        found[f"{kind}.propose"] = {"manifest": manifests[kind]}
    for verb in ("send", "ask", "suspend", "wake", "stop", "migrate"):
        found[f"agents.{verb}"] = dict(NAMED)
    for verb in ("pause", "resume"):
        found[f"routes.{verb}"] = {"namespace": "default", "name": "same-route"}
    found["routes.replay"] = {"namespace": "default", "name": "same-route", "cancel": True}
    found["agents.send"]["data"] = found["agents.ask"]["data"] = {"n": [1, "ü", None]}
    return found | {
        "resources.propose": {"manifests": list(manifests.values())},
        "plans.get": {"plan_id": ids["plan_id"]},
        "plans.commit": {"plan_id": ids["plan_id"]},
        "changes.get": {"change_id": ids["change_id"]},
        "changes.list": {"namespace": "default"},
        "changes.wait": {"change_id": ids["change_id"], "timeout_s": 1},
        "changes.revert": {"change_id": ids["change_id"]},
        "agents.inspect": dict(NAMED),
        "agents.cancel": {**NAMED, "message_id": ids["message_id"]},
        "code.put": {"files": {"a.py": "x = 1\n"}},
        "turns.list": dict(NAMED),
        "turns.get": {"turn_id": ids["turn_id"]},
        "turns.settle": {"turn_id": ids["held_turn_id"], "position": 0, "outcome": "failed", "reason": "looked"},
        "questions.list": {"namespace": "default", "agent": "same-person"},
        "questions.answer": {"question_id": ids["question_id"], "answer": "yes"},
        "channels.publish": {**CHANNEL, "data": {"x": 1}, "key": "k"},
        "channels.read": dict(CHANNEL),
        "connections.effects": {"namespace": "default", "name": "same-shop"},
        "connections.tools": {"namespace": "default", "name": "same-shop", "refresh": False},
        "connections.accept": {
            "namespace": "default",
            "name": "same-shop",
            "tool": "order",
            "digest": ids["tool_digest"],
        },
        "channels.dead_letters": {"namespace": "default", "name": "same-echo"},
        "channels.redrive": {"namespace": "default", "name": "same-echo"},
        "channels.delayed": {"namespace": "default", "kind": "Agent", "name": "same-echo"},
        "channels.cancel_delayed": {**NAMED, "kind": "Agent", "message_id": ids["delayed_id"]},
        "discovery.find": {"namespace": "default", "name": "same-echo", "labels": {"app": "e2e"}},
        "discovery.topology": {"namespace": "default", "name": "same-person"},
        "discovery.register": {"namespace": "default", "name": "same-far", "purpose": "judges", "lease_s": 600},
        "discovery.renew": {"namespace": "default", "name": "same-far", "lease_s": 600},
        "discovery.unregister": {"namespace": "default", "name": "same-far"},
        "invitations.create": {"name": "same-echo", "to_namespace": "guests", "effects": ["ask"]},
        "invitations.list": {"namespace": "default"},
        "invitations.revoke": {"invitation_id": ids["invitation_id"]},
        "channels.join": {**CHANNEL, "agent": "same-echo"},
        "channels.leave": {**CHANNEL, "agent": "same-echo"},
        "channels.members": dict(CHANNEL),
        "feedback.read": {"limit": 3, "filter": {"types": ["plane.*"]}},
        "tokens.create": {"principal": "same", "role": "viewer"},
        "tokens.list": {},
        "tokens.revoke": {"token_id": ids["token_id"]},
        "operations.search": {"query": "send a message"},
        "operations.describe": {"name": "agents.send"},
        "operations.call": {"name": "channels.get", "arguments": CHANNEL},
        "system.status": {},
        "system.brief": {},
        "system.doctor": {"namespace": "default"},
        "hosts.list": {},
        "nodes.list": {},
        "nodes.drain": {"node": os.uname().nodename, "undo": True},
        "usage.report": {"namespace": "default", "since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z"},
        "usage.invoice": {"namespace": "default", "window": "month", "at": "2026-01-01T00:00:00Z"},
        "usage.forecast": {"namespace": "default", "window": "day", "at": "2026-01-01T00:00:00Z"},
        "hosts.drain": {"host_id": ids["host_id"]},
    }


def by_route(stack: Stack, operation: Operation, arguments: dict[str, Any]) -> Any:
    """REST, by the operation's own route."""
    path, rest = operation.path, dict(arguments)
    for name in [it.split("}")[0] for it in operation.path.split("{")[1:]]:
        path = path.replace("{" + name + "}", str(rest.pop(name)))
    with stack.rest() as client:
        if operation.method == "POST":
            return client.post(path, json=rest).json()
        query = {key: json.dumps(it) if isinstance(it, dict | list) else it for key, it in rest.items()}
        return client.request(operation.method, path, params=query).json()


def by_call(stack: Stack, operation: Operation, arguments: dict[str, Any]) -> Any:
    """REST, by the general route."""
    with stack.rest() as client:
        return client.post(f"/v1/operations/{operation.name}/call", json=arguments).json()


def by_cli(stack: Stack, operation: Operation, arguments: dict[str, Any]) -> Any:
    command = [str(STEWARD), "--url", stack.url, "--token", stack.token, "call", operation.name, "--json"]
    done = subprocess.run([*command, json.dumps(arguments)], capture_output=True, text=True, timeout=60, check=False)
    answer = json.loads(done.stdout)
    assert done.returncode == (1 if "reason" in answer and "recovery" in answer else 0), done.stderr
    return answer


def by_cli_here(stack: Stack, operation: Operation, arguments: dict[str, Any]) -> Any:
    """The same command in this process: what a process costs at its start is half of such a call."""
    words = ["--url", stack.url, "--token", stack.token, "call", operation.name, "--json", json.dumps(arguments)]
    done = CliRunner().invoke(app, words)
    answer = json.loads(done.stdout)
    assert done.exit_code == (1 if "reason" in answer and "recovery" in answer else 0), done.output
    return answer


def by_mcp(stack: Stack, operation: Operation, arguments: dict[str, Any]) -> Any:
    """The tool of the operation, at /mcp/full."""
    return unwrap(tool("/mcp/full", operation.tool, arguments))


def by_intent(stack: Stack, operation: Operation, arguments: dict[str, Any]) -> Any:
    """`operations_call` at /mcp."""
    found = unwrap(tool("/mcp", "operations_call", {"name": operation.name, "arguments": arguments}))
    return found["output"] if set(found) == {"name", "output"} else found


@contextlib.asynccontextmanager
async def _client(stack: Stack, path: str) -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {stack.token}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http,
        Client(streamable_http_client(stack.url + path, http_client=http)) as client,
    ):
        yield client


@pytest.fixture(scope="module", autouse=True)
def _clients(stack: Stack) -> Iterator[None]:
    """One client of each endpoint: before its first call it reads all that the tools may answer."""
    with start_blocking_portal() as portal, contextlib.ExitStack() as opened:
        for path in ("/mcp", "/mcp/full"):
            client = opened.enter_context(portal.wrap_async_context_manager(_client(stack, path)))
            CALL[path] = partial(portal.call, client.call_tool)
        yield


def tool(path: str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    answer = CALL[path](name, arguments)
    assert answer.structured_content is not None
    assert json.loads(answer.content[0].text) == answer.structured_content
    assert bool(answer.is_error) is not answer.structured_content["ok"]
    return dict(answer.structured_content)


def unwrap(answer: dict[str, Any]) -> Any:
    return answer["data"] if answer["ok"] else answer["problem"]


SURFACES: dict[str, Callable[[Stack, Operation, dict[str, Any]], Any]] = {
    "route": by_route,
    "call": by_call,
    "cli": by_cli,
    "mcp": by_mcp,
    "intent": by_intent,
}


def settled(value: Any) -> Any:
    """Without what is of the moment."""
    if isinstance(value, dict):
        return {key: settled(it) for key, it in value.items() if key not in VOLATILE}
    return [settled(it) for it in value] if isinstance(value, list) else value


def shape(value: Any) -> Any:
    """The kinds of values only."""
    if isinstance(value, dict):
        return {key: shape(it) for key, it in value.items()}
    return "list" if isinstance(value, list) else "value"


def without_steps(problem: Any) -> Any:
    """A Problem without its next steps, which name the tools of the surface at hand."""
    return {key: it for key, it in settled(problem).items() if key != "next"}


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_the_same_input_gives_the_same_output(stack: Stack, ids: dict[str, str], name: str) -> None:
    """Route, general call, CLI, and both MCP endpoints answer alike."""
    operation, arguments = OPERATIONS[name], cases(ids)[name]
    if operation.imperative:
        arguments = {**arguments, "request_id": f"same-{name}"}
        by_call(stack, operation, arguments)
    surfaces = SURFACES if SOAK or name in OWN_PROCESS else SURFACES | {"cli": by_cli_here}
    surfaces = {key: it for key, it in surfaces.items() if key != "intent" or name != "operations.call"}
    answers = {key: surface(stack, operation, arguments) for key, surface in surfaces.items()}
    first = answers["call"]
    assert "recovery" not in first, first
    for surface, answer in answers.items():
        if name in MOVING:
            assert shape(answer) == shape(first), surface
        else:
            assert settled(answer) == settled(first), surface


def bad_inputs(operation: Operation, good: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield {**good, "no_such_field": 1}
    required = [key for key, it in operation.input.model_fields.items() if it.is_required()]
    if required and f"{{{required[0]}}}" not in operation.path:
        yield {key: it for key, it in good.items() if key != required[0]}
    if "limit" in operation.input.model_fields:
        yield {**good, "limit": 0}
        yield {**good, "limit": "many"}


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_the_same_bad_input_gives_the_same_problem(stack: Stack, ids: dict[str, str], name: str) -> None:
    """An unknown field, a missing one, a number out of range: one reason, one pointer, one text, everywhere."""
    operation = OPERATIONS[name]
    for arguments in bad_inputs(operation, cases(ids)[name]):
        problems = {
            key: without_steps(surface(stack, operation, arguments))
            for key, surface in (SURFACES | {"cli": by_cli_here}).items()
            if key in ("route", "call", "mcp") or arguments.get("no_such_field")
            if not (key == "intent" and name == "operations.call")
        }
        first = problems["call"]
        assert first["reason"] in ("UNKNOWN_FIELD", "MISSING_FIELD", "OUT_OF_RANGE", "INVALID_VALUE"), first
        assert first["field"], first
        for surface, problem in problems.items():
            if surface == "intent":
                problem = {**problem, "field": problem["field"].removeprefix("/arguments")}
            assert problem == first, surface
