"""Who may call what: every operation, with no token, a wrong one, a small one, a foreign one."""

import time
from typing import Any

import httpx
import pytest

from controlplane.resources.catalogue import OPERATIONS
from controlplane.resources.operation import Operation
from schemas.problem import Problem
from tests.api.plane import Plane

pytestmark = pytest.mark.anyio

RANK = {"viewer": 0, "operator": 1, "admin": 2}
EACH = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=lambda it: it.name)


def path_of(operation: Operation) -> str:
    return operation.path.format(**{"namespace": "default", "name": "x", **operation.example})


async def call(client: httpx.AsyncClient, operation: Operation, headers: dict[str, str]) -> httpx.Response:
    """The operation's own route, with its example."""
    rest = {name: value for name, value in operation.example.items() if f"{{{name}}}" not in operation.path}
    if operation.method == "POST":
        return await client.post(path_of(operation), json=rest, headers=headers)
    return await client.request(operation.method, path_of(operation), params=rest, headers=headers)


def require_problem(answer: httpx.Response, status: int, *reasons: str) -> Problem:
    """The answer is a whole Problem of this status, and of one of the reasons."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    found = Problem.model_validate_json(answer.content)
    assert (answer.status_code, found.status) == (status, status), answer.text
    assert found.reason in reasons, answer.text
    assert found.instance == f"urn:steward:call:{answer.headers['x-request-id']}"
    return found


@EACH
async def test_no_or_a_wrong_token_is_refused(plane: Plane, client: httpx.AsyncClient, operation: Operation) -> None:
    """Before anything else: even what is malformed gets no further."""
    token = plane.tokens["admin"]
    wrong = ["", "Bearer", "Bearer nobody", f"Basic {token}", f"Bearer {token}x", f"bearer {'x' * 5000}", token]
    for value in wrong:
        answer = await call(client, operation, {"Authorization": value})
        require_problem(answer, 401, "UNAUTHENTICATED")
        assert answer.headers["www-authenticate"].startswith("Bearer ")
    answer = await client.post(
        f"/v1/operations/{operation.name}/call", content=b"\xff{", headers={"Authorization": "Bearer nobody"}
    )
    require_problem(answer, 401, "UNAUTHENTICATED")


@EACH
async def test_a_role_that_is_too_small_is_refused(
    plane: Plane, client: httpx.AsyncClient, operation: Operation
) -> None:
    """Viewers read, operators propose and act, admins hand out tokens; agents do what agents may."""
    for label in ("viewer", "operator"):
        answer = await call(client, operation, plane.headers(label))
        if RANK[label] < RANK[operation.role]:
            require_problem(answer, 403, "FORBIDDEN")
        else:
            assert answer.status_code not in (401, 403), answer.text
    answer = await call(client, operation, plane.headers("agent"))
    if operation.name == "operations.call":
        require_problem(answer, 403, "FORBIDDEN")  # of the operation that its example calls
    elif operation.agent_may:
        assert answer.status_code not in (401, 403), answer.text
    else:
        require_problem(answer, 403, "FORBIDDEN")


@EACH
async def test_another_namespace_is_refused(plane: Plane, client: httpx.AsyncClient, operation: Operation) -> None:
    """A foreign namespace is 403 by its name; a foreign record is 404, as if it were not there."""
    answer = await call(client, operation, plane.headers("foreign"))
    if RANK["operator"] < RANK[operation.role]:
        require_problem(answer, 403, "FORBIDDEN")
    elif operation.scope == "record":
        require_problem(answer, 404, "NOT_FOUND")
    elif operation.scope == "namespace" and operation.name != "feedback.read":
        require_problem(answer, 403, "FOREIGN_NAMESPACE")
    else:
        assert answer.status_code == 200, answer.text


async def test_a_foreign_record_answers_as_an_absent_one(plane: Plane, client: httpx.AsyncClient) -> None:
    """Plans and changes of another namespace can not be told from ones that do not exist."""
    manifest = {"kind": "Channel", "metadata": {"name": "mine"}}
    plan = (await client.post("/v1/channels/propose", json={"manifest": manifest})).json()
    there, absent = plan["plan_id"], plan["plan_id"][:-3] + "abc"
    seen = [await client.get(f"/v1/plans/{plan_id}", headers=plane.headers("foreign")) for plan_id in (there, absent)]
    shapes = [
        {key: value for key, value in answer.json().items() if key not in ("detail", "instance", "metadata")}
        for answer in seen
    ]
    assert shapes[0] == shapes[1]
    assert (
        seen[0].text.replace(there, "").partition("urn:steward:call")[0]
        == (seen[1].text.replace(absent, "").partition("urn:steward:call")[0])
    )


async def test_a_revoked_token_is_refused_from_then_on(fresh: tuple[Plane, httpx.AsyncClient]) -> None:
    """The very next call is 401."""
    plane, client = fresh
    headers = plane.headers("viewer")
    assert (await client.get("/v1/system/brief", headers=headers)).status_code == 200
    await client.post(f"/v1/tokens/{plane.token_ids['viewer']}/revoke")
    require_problem(await client.get("/v1/system/brief", headers=headers), 401, "UNAUTHENTICATED")


@pytest.mark.parametrize(
    ("headers", "status", "reason"),
    [
        ({"Host": "steward.example"}, 421, "FOREIGN_HOST"),
        ({"Host": "127.0.0.1.evil.example:7700"}, 421, "FOREIGN_HOST"),
        ({"Host": "["}, 421, "FOREIGN_HOST"),
        ({"Origin": "https://evil.example"}, 403, "FOREIGN_ORIGIN"),
        ({"Origin": "null"}, 403, "FOREIGN_ORIGIN"),
        ({"Host": "localhost:7700", "Origin": "http://localhost:3000"}, 200, ""),
        ({"Host": "[::1]:7700"}, 200, ""),
    ],
)
async def test_pages_of_others_can_not_be_rebound_to_us(
    client: httpx.AsyncClient, headers: dict[str, str], status: int, reason: str
) -> None:
    """On the loopback only the loopback's own names are answered, health included."""
    for path in ("/v1/system/brief", "/healthz"):
        answer = await client.get(path, headers=headers)
        assert answer.status_code == status
        if reason:
            require_problem(answer, status, reason)


async def test_what_breaks_is_internal_and_tells_nothing(
    fresh: tuple[Plane, httpx.AsyncClient], caplog: pytest.LogCaptureFixture
) -> None:
    """A client gets a correlation id; the log gets kind and place, and neither token nor input."""
    plane, client = fresh

    async def broken(*_: Any) -> Any:
        raise RuntimeError("the secret is hunter2")

    handlers: Any = plane.parts.dispatcher.handlers
    handlers["system.brief"] = broken
    began = time.monotonic()
    answer = await client.get("/v1/system/brief")
    found = require_problem(answer, 500, "INTERNAL")
    assert "hunter2" not in answer.text
    assert found.changed == "unknown"
    assert found.metadata["call"] in caplog.text
    assert "RuntimeError" in caplog.text
    assert "hunter2" not in caplog.text
    assert plane.tokens["admin"] not in caplog.text
    assert time.monotonic() - began < 5
