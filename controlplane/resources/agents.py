"""Agents: the kind, and what can be done with a living one."""

from controlplane.resources.kinds import of_kind
from controlplane.resources.operation import Operation
from schemas.agent import Agent, AgentManifest
from schemas.calls import (
    Answer,
    AskInput,
    CancelInput,
    Cancelled,
    CodePut,
    CodePutInput,
    Inspection,
    ListOutput,
    Named,
    NamedAct,
    SendInput,
    Sent,
)
from schemas.records import TurnInput, TurnListInput, TurnSummary, TurnView

ECHO = """from ray_runtime import Agent, Turn


class Echo(Agent):
    async def on_message(self, turn: Turn, envelope):
        return envelope.data
"""
EXAMPLE = {
    "kind": "Agent",
    "metadata": {"namespace": "default", "name": "echo", "labels": {"app": "echo"}},
    "spec": {"code": {"files": {"echo.py": ECHO}}, "entrypoint": "echo:Echo", "mandate": {"purpose": "echoes"}},
}
_NAMED = {"namespace": "default", "name": "echo"}


class TurnList(ListOutput[TurnSummary]):
    """A page of turns, newest first."""


def _act(verb: str, summary: str, description: str, **rest: object) -> Operation:
    return Operation(
        f"agents.{verb}",
        summary,
        description,
        NamedAct,
        Agent,
        "POST",
        f"/v1/agents/{{namespace}}/{{name}}/{verb}",
        "change",
        "operator",
        "namespace",
        imperative=True,
        problems=("NOT_FOUND", "NOT_READY", "NOT_SET_UP"),
        example=_NAMED,
        **rest,  # type: ignore[arg-type]
    )


OPERATIONS = (
    *of_kind("Agent", AgentManifest, Agent, EXAMPLE),
    Operation(
        "agents.send",
        "Send a message to an agent",
        "Durable when answered. Wakes a suspended agent; a stopped one handles it after `agents.wake`.",
        SendInput,
        Sent,
        "POST",
        "/v1/agents/{namespace}/{name}/send",
        "change",
        "operator",
        "namespace",
        repeats_safely=False,
        imperative=True,
        agent_may=True,
        problems=("NOT_FOUND", "BACKLOG_FULL", "TOO_LARGE", "NOT_READY", "NOT_SET_UP"),
        example={**_NAMED, "data": {"text": "hello"}},
    ),
    Operation(
        "agents.ask",
        "Send a message and wait for the answer",
        "The answer is what the agent's handler returns. A timeout is no error: `answered` is false, "
        "and the same `request_id` asks again for the same answer.",
        AskInput,
        Answer,
        "POST",
        "/v1/agents/{namespace}/{name}/ask",
        "change",
        "operator",
        "namespace",
        repeats_safely=False,
        imperative=True,
        agent_may=True,
        problems=(
            "NOT_FOUND",
            "BACKLOG_FULL",
            "TOO_LARGE",
            "NOT_READY",
            "NOT_SET_UP",
            "TURN_FAILED",
            "DEADLINE",
            "CANCELLED",
            "EXPIRED",
            "SCHEMA_MISMATCH",
            "OUTPUT_MISMATCH",
        ),
        untrusted=("/reply",),
        example={**_NAMED, "data": {"text": "hello"}, "timeout_s": 20},
    ),
    Operation(
        "agents.cancel",
        "Cancel a question",
        "Nobody waits for its answer any more: a turn that has not begun does not begin, one that is parked ends, and "
        "what it had asked itself is cancelled with it. What it has sent stays sent; an answer it has already is kept.",
        CancelInput,
        Cancelled,
        "POST",
        "/v1/agents/{namespace}/{name}/cancel",
        "change",
        "operator",
        "namespace",
        imperative=True,
        problems=("NOT_FOUND", "NOT_READY", "NOT_SET_UP"),
        example={**_NAMED, "message_id": "msg_1"},
    ),
    _act(
        "suspend",
        "Suspend an agent",
        "Lets go of its host as soon as it is idle or parked; a message or timer wakes it.",
    ),
    _act("wake", "Wake an agent", "Brings it to a host now, and ends `stop`."),
    _act(
        "stop",
        "Stop an agent",
        "It handles nothing until `agents.wake`; messages are kept. An open turn is put back to its "
        "last durable await or start.",
    ),
    Operation(
        "agents.inspect",
        "Look inside an agent",
        "Its committed state, what it waits on, its timers, its dead letters, and why it is awake.",
        Named,
        Inspection,
        "GET",
        "/v1/agents/{namespace}/{name}/inspect",
        "read",
        "viewer",
        "namespace",
        agent_may=True,
        problems=("NOT_FOUND", "NOT_SET_UP"),
        untrusted=("/state", "/dead_letters/*/detail"),
        example=_NAMED,
    ),
    Operation(
        "code.put",
        "Store source files by their digest",
        "The digest can then stand in any agent's `spec.code.digest`.",
        CodePutInput,
        CodePut,
        "POST",
        "/v1/code",
        "change",
        "operator",
        "installation",
        imperative=True,
        problems=("INVALID_CODE", "TOO_LARGE"),
        example={"files": {"echo.py": ECHO}},
    ),
    Operation(
        "turns.list",
        "List an agent's turns",
        "Newest first.",
        TurnListInput,
        TurnList,
        "GET",
        "/v1/turns",
        "read",
        "viewer",
        "namespace",
        agent_may=True,
        problems=("NOT_FOUND", "INVALID_CURSOR", "NOT_SET_UP"),
        example=_NAMED,
    ),
    Operation(
        "turns.get",
        "Get one turn with its journal",
        "The message it handled, every effect it asked for, and what came of each.",
        TurnInput,
        TurnView,
        "GET",
        "/v1/turns/{turn_id}",
        "read",
        "viewer",
        "record",
        agent_may=True,
        problems=("NOT_FOUND",),
        untrusted=("/message", "/journal/*/body", "/journal/*/result"),
        example={"turn_id": "turn_1"},
    ),
)
