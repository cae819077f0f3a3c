"""The boundary: tokens, hosts, origins, and what breaks. Who may call what is in tests/authorization."""

import time
from typing import Any

import httpx
import pytest

from schemas.problem import Problem
from tests.api.plane import Plane

pytestmark = pytest.mark.anyio


def require_problem(answer: httpx.Response, status: int, *reasons: str) -> Problem:
    """The answer is a whole Problem of this status, and of one of the reasons."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    found = Problem.model_validate_json(answer.content)
    assert (answer.status_code, found.status) == (status, status), answer.text
    assert found.reason in reasons, answer.text
    assert found.instance == f"urn:steward:call:{answer.headers['x-request-id']}"
    return found


async def test_nobody_is_answered_before_the_token_is_good(client: httpx.AsyncClient) -> None:
    """Even what is malformed, or nowhere, gets no further."""
    for path in ("/v1/operations/agents.get/call", "/v1/operations/no.such/call", "/nowhere", "/metrics"):
        answer = await client.post(path, content=b"\xff{", headers={"Authorization": "Bearer nobody"})
        require_problem(answer, 401, "UNAUTHENTICATED")


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
