"""The tutorial's story by the generated client, typed: `python story.py URL TOKEN`. mypy --strict holds it against it.

Every answer is a model of the client or its `Problem`; nothing here knows of JSON.
"""

import sys
from typing import TypeVar

import httpx
from steward_client import AuthenticatedClient
from steward_client.api.agents import agents_ask, agents_delete, agents_get, agents_inspect
from steward_client.api.changes import changes_revert, changes_wait
from steward_client.api.feedback import feedback_read
from steward_client.api.plans import plans_commit
from steward_client.api.resources import resources_propose
from steward_client.models import (
    AgentManifest,
    AgentsAskBody,
    AgentSpec,
    Answer,
    Change,
    ChangeOutcome,
    Code,
    CodeFilesType0,
    CommitResult,
    CommitResultOutcome,
    EventsFound,
    ManifestMetadata,
    Plan,
    Problem,
    ProposeInput,
)

SOURCE = """from pydantic import BaseModel
from ray_runtime import Agent


class Seen(BaseModel):
    readings: int = 0


class Counter(Agent):
    state: Seen

    async def on_message(self, turn, envelope):
        self.state.readings += 1
        return {"reading": envelope.data, "of": self.state.readings}
"""
NAME = "of-a-generated-client"
A = TypeVar("A")


def given(kind: type[A], answered: object) -> A:
    """The answer, which must be of this model."""
    if not isinstance(answered, kind):
        raise TypeError(f"{kind.__name__} was expected, and came {answered}")
    return answered


def manifest(entrypoint: str) -> AgentManifest:
    files = CodeFilesType0.from_dict({"counter.py": SOURCE})
    spec = AgentSpec(code=Code(files=files), entrypoint=entrypoint, suspend_after_ms=200)
    return AgentManifest(kind="Agent", metadata=ManifestMetadata(name=NAME), spec=spec)


def carried_out(client: AuthenticatedClient, plan: Plan) -> Change:
    """Commit, and wait for the verdicts."""
    committed = given(CommitResult, plans_commit.sync(plan.plan_id, client=client))
    if committed.outcome is not CommitResultOutcome.COMMITTED or committed.change_id is None:
        raise ValueError(f"not committed: {committed}")
    while True:
        change = given(Change, changes_wait.sync(committed.change_id, client=client, timeout_s=30))
        if change.done:
            return change


def main(url: str, token: str) -> None:
    client = AuthenticatedClient(base_url=url, token=token, timeout=httpx.Timeout(70))
    start = given(EventsFound, feedback_read.sync(client=client, limit=1)).cursor
    wrong = given(Problem, resources_propose.sync(client=client, body=ProposeInput([manifest("counter.Counter")])))
    print("refused:", wrong.reason, wrong.field, wrong.recovery.value)
    plan = given(Plan, resources_propose.sync(client=client, body=ProposeInput([manifest("counter:Counter")])))
    print("steps:", [(step.action.value, step.target.name) for step in plan.steps])
    print("claims:", [(claim.measure, claim.expected.value) for claim in plan.claims])
    made = carried_out(client, plan)
    print("made:", made.outcome is ChangeOutcome.VERIFIED, [str(claim.verdict) for claim in made.claims])
    answer = given(Answer, agents_ask.sync("default", NAME, client=client, body=AgentsAskBody(data=21, timeout_s=60)))
    print("answer:", answer.reply)
    agent = agents_get.sync("default", NAME, client=client)
    if agent is None or isinstance(agent, Problem):
        raise TypeError(f"an agent was expected, and came {agent}")
    print("ready:", {it.type_: it.status.value for it in agent.status.conditions}["Ready"], agent.metadata.generation)
    inspected = agents_inspect.sync("default", NAME, client=client)
    if inspected is None or isinstance(inspected, Problem):
        raise TypeError(f"an inspection was expected, and came {inspected}")
    print("state:", inspected.state)
    told = given(EventsFound, feedback_read.sync(client=client, after=start, limit=500))
    mine = [event.type_ for event in told.events if event.change_id == made.change_id]
    print("told:", "change.committed" in mine, (plan.expires_at - plan.as_of).total_seconds() > 0)
    back = given(Plan, changes_revert.sync(made.change_id, client=client))
    print("way back:", [step.action.value for step in back.steps])
    deletion = given(Plan, agents_delete.sync("default", NAME, client=client))
    print("gone:", carried_out(client, deletion).outcome.value)
    print("absent:", given(Problem, agents_get.sync("default", NAME, client=client)).reason)


if __name__ == "__main__":
    main(*sys.argv[1:])
