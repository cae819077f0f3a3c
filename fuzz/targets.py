"""What is fuzzed: a plane in this process, or `steward up` on a real port, on either database.

Each is prepared alike: the resources that the document's examples speak of are there, and the token that
a run lives on is out of its reach.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import requests
from schemathesis.python import asgi

from controlplane.resources import agents, budgets, channels, connections, fleets, routes, secrets
from fuzz import checks, inprocess, steering
from fuzz.rules import SETTINGS
from fuzz.runner import Target
from tests.stack import Stack

EXAMPLES = [room.EXAMPLE for room in (agents, channels, secrets, fleets, connections, budgets, routes)]
DONE_S_MAX = 90
Wrap = Callable[[Any], Any]
Call = Callable[..., Any]


@contextlib.contextmanager
def in_process(database_url: str | None, wrap: Wrap = lambda app: app) -> Iterator[Target]:
    """The whole composition as one app; `wrap` may put something around it."""
    with inprocess.plane_app(database_url, **SETTINGS) as app:
        outer = wrap(app)
        with asgi.get_client(outer) as session:
            yield _prepared(session, inprocess.URL, app.token, outer)


@contextlib.contextmanager
def live(database_url: str | None) -> Iterator[Target]:
    """An installation as a user would start it, with Ray."""
    with Stack(database_url, **SETTINGS) as stack, requests.Session() as session:
        yield _prepared(session, stack.url, stack.token)


def _prepared(session: requests.Session, url: str, token: str, app: Any = None) -> Target:
    session.headers["Authorization"] = f"Bearer {token}"

    call = _caller(session, url)
    plan_id, change = _with_resources(call)
    steering.PROTECTED |= {it["token_id"] for it in call("tokens.list")["items"]}
    steering.KEPT.add("local")  # without its one node, whatever wakes somebody waits for nothing
    if app is not None:
        steering.KEPT |= {it["host_id"] for it in call("hosts.list")["items"]}
    call("agents.ask", name="echo", data="hello", timeout_s=DONE_S_MAX)
    issued = call("tokens.create", principal="somebody", role="viewer")
    checks.ISSUED[issued["token_id"]] = issued["token"]
    ids = {
        "plan_id": plan_id,
        "change_id": change,
        "turn_id": call("turns.list", name="echo")["items"][0]["turn_id"],
        "token_id": issued["token_id"],
        "invitation_id": call("invitations.create", name="echo", to_namespace="guests")["invitation_id"],
    }
    document = session.get(f"{url}/openapi.json", timeout=60).json()
    return Target(url, token, _with_examples(document, ids), app)


def restore(target: Target) -> None:
    """Make again what a run may have deleted or stopped."""
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {target.token}"
        call = _caller(session, target.url)
        _with_resources(call)
        call("agents.wake", name="echo")


def _caller(session: requests.Session, url: str) -> Call:
    def call(operation: str, **given: Any) -> Any:
        answer = session.post(f"{url}/v1/operations/{operation}/call", json=given, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.json()

    return call


def _with_resources(call: Call) -> tuple[str, str]:
    """The plan and the change that made the resources of the examples, once it is done."""
    plan_id = call("resources.propose", manifests=EXAMPLES)["plan_id"]
    change = call("plans.commit", plan_id=plan_id)["change_id"]
    limit = time.monotonic() + DONE_S_MAX
    while not call("changes.wait", change_id=change, timeout_s=10)["done"]:
        assert time.monotonic() < limit, call("changes.get", change_id=change)
    return plan_id, str(change)


def _with_examples(document: dict[str, Any], ids: dict[str, str]) -> dict[str, Any]:
    """The document with ids in its examples that are of what is there, so that each leads somewhere."""
    for path in document["paths"].values():
        for operation in path.values():
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "path" and parameter["name"] in ids:
                    parameter["schema"]["examples"] = [ids[parameter["name"]]]
    return document
