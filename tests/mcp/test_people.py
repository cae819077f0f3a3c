"""What an agent asks a person reaches the person at the MCP client that waits for it: real clients of both eras."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import mcp_types as types
import pytest

from tests.api.plane import Plane
from tests.mcp.conftest import MODES, called, connected, lived

pytestmark = pytest.mark.anyio
SOURCE = """
from ray_runtime import Agent, Turn


class Asker(Agent):
    async def on_message(self, turn: Turn, envelope):
        data = envelope.data or {}
        return {"said": await turn.ask_human(data.get("question", "Deploy?"), data.get("choices"))}


class Above(Agent):
    async def on_message(self, turn: Turn, envelope):
        return (await turn.ask("asker", {"question": "from below?"})).data
"""
Shown = Callable[[types.ElicitRequestFormParams], Awaitable[types.ElicitResult]]
ENDPOINTS: dict[str, tuple[str, dict[str, Any]]] = {
    "/mcp": ("act", {"operation": "agents.ask"}),
    "/mcp/full": ("agents_ask", {}),
    "/mcp/agents/default": ("asker__decide", {}),
}


def agent(name: str) -> dict[str, Any]:
    code = {"files": {"asking.py": SOURCE}}
    spec = {"code": code, "entrypoint": f"asking:{name.title()}", "capabilities": ["decide"], "suspend_after_ms": 0}
    return {"kind": "Agent", "metadata": {"namespace": "default", "name": name}, "spec": spec}


@pytest.fixture(scope="module")
async def office(
    anyio_backend: str, _migrated_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Plane]:
    path = tmp_path_factory.mktemp("office") / "steward.db"
    shutil.copy(_migrated_file, path)
    async with lived(f"sqlite:///{path}", [agent("asker"), agent("above")]) as plane:
        yield plane


@pytest.fixture
async def rest(office: Plane) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=office.url, headers=office.headers(), timeout=40) as client:
        yield client


@pytest.fixture(params=list(MODES))
def connect(office: Plane, request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Connects a client whose person does what `shown` does; without it, one that shows no forms."""

    def to(path: str = "/mcp", shown: Shown | None = None) -> Any:
        async def elicit(_: Any, params: Any) -> types.ElicitResult:
            assert shown is not None
            return await shown(params)

        can = {} if shown is None else {"elicitation_callback": elicit}
        return connected(office, path, "operator", request.param, **can)

    return to


def says(*answers: str | None) -> tuple[Shown, list[types.ElicitRequestFormParams]]:
    """A person who answers so, one after the other; None declines. And what was shown."""
    left, seen = list(answers), list[types.ElicitRequestFormParams]()

    async def shown(params: types.ElicitRequestFormParams) -> types.ElicitResult:
        seen.append(params)
        answer = left.pop(0)
        if answer is None:
            return types.ElicitResult(action="decline")
        return types.ElicitResult(action="accept", content={"answer": answer})

    return shown, seen


async def ask(client: Any, path: str = "/mcp", name: str = "asker", **given: Any) -> Any:
    """What `agents.ask` answers by the tool of an endpoint."""
    tool, arguments = ENDPOINTS[path]
    data, more = given.pop("data", {}), {"timeout_s": 30, **given}
    if path == "/mcp":
        arguments = {**arguments, "arguments": {"namespace": "default", "name": name, "data": data, **more}}
    elif path == "/mcp/full":
        arguments = {"namespace": "default", "name": name, "data": data, **more}
    else:
        arguments = {"data": data}
    answer = await client.call_tool(tool, arguments)
    assert answer.is_error is False, answer
    found = answer.structured_content
    return found if "ok" not in found else found["data"]


async def questions(rest: httpx.AsyncClient, number: int) -> list[dict[str, Any]]:
    """The open questions, once there are so many."""
    for _ in range(600):
        found: Any = (await called(rest, "questions.list", namespace="default"))["items"]
        if len(found) == number:
            return list(found)
        await asyncio.sleep(0.05)
    raise AssertionError(found)


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_the_person_at_the_client_answers(
    path: str, connect: Callable[..., Any], rest: httpx.AsyncClient
) -> None:
    """At each endpoint, in each era: the form has the choices, and the answer is the principal's."""
    shown, seen = says("yes")
    async with connect(path, shown) as client:
        found = await ask(client, path, data={"question": "Go?", "choices": ["yes", "no"]})
    assert found["reply"] == {"said": "yes"}
    (form,) = seen
    assert form.message == "default/asker asks: Go?"
    assert form.requested_schema["properties"]["answer"]["enum"] == ["yes", "no"]
    assert form.requested_schema["required"] == ["answer"]
    events = (await called(rest, "feedback.read", filter={"types": ["question.answered"]}))["events"]
    assert events[-1]["principal"] == "op"


async def test_a_question_further_down_comes_up(connect: Callable[..., Any]) -> None:
    """Of an agent that the one that was asked waits for; any text is an answer where there are no choices."""
    shown, seen = says("all is well")
    async with connect(shown=shown) as client:
        assert (await ask(client, name="above"))["reply"] == {"said": "all is well"}
    assert [it.message for it in seen] == ["default/asker asks: from below?"]
    assert "enum" not in seen[0].requested_schema["properties"]["answer"]


async def test_who_declines_leaves_it_to_others(connect: Callable[..., Any], rest: httpx.AsyncClient) -> None:
    """The form is not shown again, and the call goes on until somebody answers."""
    shown, seen = says(None)
    async with connect(shown=shown) as client:
        asking = asyncio.ensure_future(ask(client))
        (question,) = await questions(rest, 1)
        while not seen:  # noqa: ASYNC110 - the form comes when it comes
            await asyncio.sleep(0.02)
        await called(rest, "questions.answer", question_id=question["question_id"], answer="by another")
        assert (await asking)["reply"] == {"said": "by another"}
    assert len(seen) == 1


async def test_who_is_first_is_heard(connect: Callable[..., Any], rest: httpx.AsyncClient) -> None:
    """Somebody else answers while the form is shown: what the person says then counts for nothing."""
    answered = asyncio.Event()

    async def shown(_: Any) -> types.ElicitResult:
        await answered.wait()
        return types.ElicitResult(action="accept", content={"answer": "too late"})

    async with connect(shown=shown) as client:
        asking = asyncio.ensure_future(ask(client))
        (question,) = await questions(rest, 1)
        await called(rest, "questions.answer", question_id=question["question_id"], answer="first")
        answered.set()
        assert (await asking)["reply"] == {"said": "first"}


async def test_what_is_no_answer_is_asked_again(connect: Callable[..., Any]) -> None:
    """With what was wrong with it."""
    shown, seen = says("perhaps", "no")
    async with connect(shown=shown) as client:
        found = await ask(client, data={"choices": ["yes", "no"]})
    assert found["reply"] == {"said": "no"}
    assert "is one of: 'yes', 'no'" in seen[1].message


async def test_a_client_that_shows_no_forms_is_told_where_to_look(
    connect: Callable[..., Any], rest: httpx.AsyncClient
) -> None:
    """Nothing else changes for it."""
    async with connect() as client:
        arguments = {"namespace": "default", "name": "asker", "timeout_s": 0.1}
        answer = await client.call_tool("act", {"operation": "agents.ask", "arguments": arguments})
        (step,) = answer.structured_content["next"]
        assert answer.structured_content["data"]["answered"] is False
        assert step["arguments"] == {"name": "questions.list", "arguments": {"namespace": "default", "agent": "asker"}}
        (question,) = await questions(rest, 1)
        given = {"question_id": question["question_id"], "answer": "done"}
        await client.call_tool("operations_call", {"name": "questions.answer", "arguments": given})
    await questions(rest, 0)


async def test_an_answer_of_another_caller_is_none(office: Plane, rest: httpx.AsyncClient) -> None:
    """Ids of requests are no secret of ours alone once they were sent: who did not get one may not answer it."""
    ids: list[str] = []

    async def elicit(context: Any, _: Any) -> types.ElicitResult:
        ids.append(context.request_id)
        told = {"jsonrpc": "2.0", "id": ids[-1], "result": {"action": "accept", "content": {"answer": "forged"}}}
        forged = await rest.post("/mcp", json=told, headers={"accept": "application/json, text/event-stream"})
        assert forged.status_code == 202
        return types.ElicitResult(action="accept", content={"answer": "true"})

    async with connected(office, "/mcp", "operator", "handshake", elicitation_callback=elicit) as client:
        assert (await ask(client))["reply"] == {"said": "true"}
    assert [len(it) for it in ids] == [32]


async def test_a_state_that_is_none_of_ours_is_an_error(office: Plane) -> None:
    """What comes back is held against its form, and rests on nothing else."""
    from mcp import MCPError

    shown, _ = says()

    async def elicit(_: Any, params: Any) -> types.ElicitResult:
        return await shown(params)

    async with connected(office, "/mcp", "operator", "modern", elicitation_callback=elicit) as client:
        for state in ("", "7", "{}", '{"request_id": 1, "seen": []}'):
            with pytest.raises(MCPError, match="not one of ours"):
                await client.session.call_tool("act", {"operation": "agents.ask"}, request_state=state)
