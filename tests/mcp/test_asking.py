"""Waiting for an agent as a tool: what passes is waited through, and whatever ends it lets go of the question."""

from types import SimpleNamespace
from typing import Any

import pytest

from controlplane.resources.problems import refuse
from mcp_server.agents import AgentTools
from schemas.principal import Principal
from schemas.problem import Refusal

pytestmark = pytest.mark.anyio
WAITS = SimpleNamespace(answered=False, message_id="m", reply=None)
DONE = SimpleNamespace(answered=True, message_id="m", reply=7)


def _refused(reason: str) -> Refusal:
    found = refuse("INVALID_VALUE", "it is", field="/x").problem
    return Refusal(found.model_copy(update={"reason": reason, "retry_after_s": 0.01}))


async def _asked(*answers: Any) -> tuple[Any, list[str]]:
    """What became of the question, and which operations were called; the plane is played by a list of answers."""
    left, called = list(answers), list[str]()

    async def call(_: Principal, operation: str, __: Any) -> Any:
        called.append(operation)
        if operation == "agents.cancel":
            return None
        if isinstance(it := left.pop(0), Exception):
            raise it
        return it

    tools = AgentTools(call)
    try:
        found: Any = await tools._ask(Principal("ann", "operator", ("*",)), {"namespace": "default", "name": "a"})
    except (Refusal, RuntimeError) as error:
        found = error
    for task in list(tools._ending):
        await task
    return found, called


async def test_what_passes_is_waited_through() -> None:
    """The question was taken in: it is asked for again under its own request id."""
    passing = [_refused(it) for it in ("NOT_READY", "QUOTA", "IN_DOUBT")]
    assert await _asked(WAITS, *passing, DONE) == (7, ["agents.ask"] * 5)


async def test_whatever_ends_the_waiting_lets_go_of_the_question() -> None:
    """So that no agent works for nobody; what was never taken in is not cancelled."""
    for ends in (_refused("NOT_FOUND"), RuntimeError("it broke")):
        assert await _asked(WAITS, ends) == (ends, ["agents.ask", "agents.ask", "agents.cancel"])
        assert await _asked(ends) == (ends, ["agents.ask"])
