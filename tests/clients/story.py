"""The tutorial's story by the generated client, typed: `python story.py URL TOKEN`. mypy --strict holds it against it.

Every answer is a model of the client or its `Problem`; nothing here knows of JSON.
"""

import sys
from typing import TypeVar

import httpx
from steward_client import AuthenticatedClient
from steward_client.api.agents import agents_ask, agents_delete, agents_get, agents_inspect, agents_stop, agents_wake
from steward_client.api.changes import changes_list, changes_revert, changes_wait
from steward_client.api.channels import channels_publish, channels_read
from steward_client.api.feedback import feedback_read
from steward_client.api.plans import plans_commit
from steward_client.api.resources import resources_propose
from steward_client.api.turns import turns_get, turns_list
from steward_client.models import (
    Agent,
    AgentManifest,
    AgentsAskBody,
    AgentSpec,
    Answer,
    Change,
    ChangeList,
    ChangeOutcome,
    ChannelManifest,
    ChannelRead,
    ChannelSpec,
    ChannelsPublishBody,
    Code,
    CodeFilesType0,
    CommitResult,
    CommitResultOutcome,
    EventsFound,
    Inspection,
    ManifestMetadata,
    Plan,
    Problem,
    ProposeInput,
    Published,
    TurnList,
    TurnView,
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


def manifest(entrypoint: str, suspend_after_ms: int = 200) -> AgentManifest:
    files = CodeFilesType0.from_dict({"counter.py": SOURCE})
    spec = AgentSpec(code=Code(files=files), entrypoint=entrypoint, suspend_after_ms=suspend_after_ms)
    return AgentManifest(kind="Agent", metadata=ManifestMetadata(name=NAME), spec=spec)


def proposed(client: AuthenticatedClient, wanted: AgentManifest | ChannelManifest) -> Plan:
    return given(Plan, resources_propose.sync(client=client, body=ProposeInput([wanted])))


def carried_out(client: AuthenticatedClient, plan: Plan) -> Change:
    """Commit, and wait for the verdicts."""
    committed = given(CommitResult, plans_commit.sync(plan.plan_id, client=client))
    if committed.outcome is not CommitResultOutcome.COMMITTED or committed.change_id is None:
        raise ValueError(f"not committed: {committed}")
    while True:
        change = given(Change, changes_wait.sync(committed.change_id, client=client, timeout_s=30))
        if change.done:
            return change


def made(client: AuthenticatedClient) -> None:
    """A bad manifest is refused, a good one planned, committed and verified; the log says so."""
    start = given(EventsFound, feedback_read.sync(client=client, limit=1)).cursor
    wrong = given(Problem, resources_propose.sync(client=client, body=ProposeInput([manifest("counter.Counter")])))
    print("refused:", wrong.reason, wrong.field, wrong.recovery.value)
    plan = proposed(client, manifest("counter:Counter"))
    print("steps:", [(step.action.value, step.target.name) for step in plan.steps])
    print("claims:", [(claim.measure, claim.expected.value) for claim in plan.claims])
    change = carried_out(client, plan)
    print("made:", change.outcome is ChangeOutcome.VERIFIED, [str(claim.verdict) for claim in change.claims])
    told = given(EventsFound, feedback_read.sync(client=client, after=start, limit=500))
    mine = [event.type_ for event in told.events if event.change_id == change.change_id]
    print("told:", "change.committed" in mine, (plan.expires_at - plan.as_of).total_seconds() > 0)


def looked_into(client: AuthenticatedClient) -> None:
    """It answers, its state is there to see, and so is the turn that made it."""
    answer = given(Answer, agents_ask.sync("default", NAME, client=client, body=AgentsAskBody(data=21, timeout_s=60)))
    print("answer:", answer.reply)
    agent = given(Agent, agents_get.sync("default", NAME, client=client))
    print("ready:", {it.type_: it.status.value for it in agent.status.conditions}["Ready"], agent.metadata.generation)
    print("state:", given(Inspection, agents_inspect.sync("default", NAME, client=client)).state)
    newest = given(TurnList, turns_list.sync(client=client, name=NAME, limit=1)).items[0]
    turn = given(TurnView, turns_get.sync(newest.turn_id, client=client))
    print("turn:", turn.outcome.value, newest.started_at <= turn.started_at)


def changed_and_undone(client: AuthenticatedClient) -> None:
    """A field is changed by a plan that shows it before and after, and restored by the plan that takes it back."""
    plan = proposed(client, manifest("counter:Counter", suspend_after_ms=300))
    print("would change:", [(it.path, it.before, it.after) for it in plan.steps[0].changes])
    change = carried_out(client, plan)
    listed = given(ChangeList, changes_list.sync(client=client, namespace="default", limit=1)).items[0]
    print("changed:", change.outcome.value, listed.change_id == change.change_id)
    back = given(Plan, changes_revert.sync(change.change_id, client=client))
    print("undone:", carried_out(client, back).outcome.value)
    agent = given(Agent, agents_get.sync("default", NAME, client=client))
    print("as before:", agent.spec.suspend_after_ms, agent.metadata.generation)


def stopped_and_woken(client: AuthenticatedClient) -> None:
    for verb in (agents_stop, agents_wake):
        agent = given(Agent, verb.sync("default", NAME, client=client))
        print("stopped:", {it.type_: it.status.value for it in agent.status.conditions}["Stopped"])


def published_and_read(client: AuthenticatedClient) -> None:
    name = f"{NAME}-reports"
    wanted = ChannelManifest(kind="Channel", metadata=ManifestMetadata(name=name), spec=ChannelSpec())
    carried_out(client, proposed(client, wanted))
    body = ChannelsPublishBody(data={"cpu": 93})
    said = given(Published, channels_publish.sync("default", name, client=client, body=body))
    read = given(ChannelRead, channels_read.sync("default", name, client=client, wait_s=5))
    print("read:", [(it["id"] == said.message_id, it["data"]) for it in read.envelopes])


def main(url: str, token: str) -> None:
    client = AuthenticatedClient(base_url=url, token=token, timeout=httpx.Timeout(70))
    made(client)
    looked_into(client)
    changed_and_undone(client)
    stopped_and_woken(client)
    published_and_read(client)
    deletion = given(Plan, agents_delete.sync("default", NAME, client=client))
    print("gone:", carried_out(client, deletion).outcome.value)
    print("absent:", given(Problem, agents_get.sync("default", NAME, client=client)).reason)


if __name__ == "__main__":
    main(*sys.argv[1:])
