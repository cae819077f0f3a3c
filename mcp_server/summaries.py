"""An output in one sentence, what it is about, and where one may go from it.

Read from the output's own fields, for a reader with little room; nothing is asked again and nothing
is guessed. An output of a type that is not named here is summed up by its operation.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from pydantic import BaseModel

from controlplane.resources.operation import Operation
from mcp_server.hints import WAIT_S
from schemas.agent import Agent
from schemas.budget import Budget
from schemas.calls import Answer, ChannelRead, Inspection, Published, Sent
from schemas.channel import Channel
from schemas.doctor import DoctorReport
from schemas.feedback import EventsFound
from schemas.fleet import Fleet
from schemas.moving import HostDrained, Migrated
from schemas.nodes import NodeDrained
from schemas.plan import Change, CommitResult, Plan, Preview
from schemas.problem import Next
from schemas.records import Brief, OperationDescription, OperationResult, OperationsFound, TurnView
from schemas.route import Route
from schemas.secret import Secret


class Told(NamedTuple):
    """What the envelope says beside the data."""

    summary: str
    ref: str | None = None
    next: tuple[Next, ...] = ()


def tell(operation: Operation, given: dict[str, Any], output: BaseModel) -> Told:
    """Sum up an output; `given` is the input it answers."""
    teller = _TELLERS.get(type(output))
    if teller is not None:
        return teller(output, given)
    items = getattr(output, "items", None)
    if isinstance(items, list):
        return _list(operation, output, given)
    return Told(f"{operation.summary}: done.")


def _plan(plan: Plan, _: dict[str, Any]) -> Told:
    if not plan.steps:
        return Told("Nothing to change: everything is as the manifests want it.", plan.plan_id)
    shown = [f"{step.action} {step.target.kind} {step.target.namespace}/{step.target.name}" for step in plan.steps[:5]]
    more = f" and {len(plan.steps) - 5} more" if len(plan.steps) > 5 else ""
    return Told(
        f"Plan {plan.plan_id}, not committed: {', '.join(shown)}{more}; {len(plan.claims)} claims to be verified.",
        plan.plan_id,
        (Next(operation="plans.commit", arguments={"plan_id": plan.plan_id}, why="makes it so"),),
    )


def _commit(result: CommitResult, _: dict[str, Any]) -> Told:
    if result.outcome == "stale" and result.new_plan_id:
        moved = ", ".join(f"{it.kind} {it.namespace}/{it.name}" for it in result.moved[:5])
        step = Next(
            operation="plans.commit",
            arguments={"plan_id": result.new_plan_id},
            why="commits the same wishes on what is there now; read the plan first",
        )
        return Told(f"Not committed: {moved or 'something'} moved since the plan was made.", result.plan_id, (step,))
    steps: tuple[Next, ...] = ()
    if result.change_id:
        steps = (
            Next(
                operation="changes.wait",
                arguments={"change_id": result.change_id, "timeout_s": WAIT_S},
                why="waits until its claims are verified",
            ),
        )
    return Told(f"{result.outcome.replace('_', ' ').capitalize()}.", result.change_id or result.plan_id, steps)


def _change(change: Change, _: dict[str, Any]) -> Told:
    held = sum(claim.verdict == "held" for claim in change.claims)
    done = sum(step.done for step in change.steps)
    summary = (
        f"Change {change.change_id} is {change.outcome}: {done} of {len(change.steps)} steps done, "
        f"{held} of {len(change.claims)} claims held."
    )
    waits = "".join(f" Waits: {wait.message}." for wait in change.waits_on[:3])
    about = {"change_id": change.change_id}
    steps: tuple[Next, ...] = ()
    if not change.done:
        steps = (Next(operation="changes.wait", arguments=about | {"timeout_s": WAIT_S}, why="waits for the rest"),)
    elif change.outcome == "missed" and not change.reverted_by:
        steps = (Next(operation="changes.revert", arguments=about, why="proposes the way back"),)
    return Told(summary + waits, change.change_id, steps)


def _resource(found: Agent | Fleet | Channel | Secret | Budget | Route, _: dict[str, Any]) -> Told:
    named = {"namespace": found.metadata.namespace, "name": found.metadata.name}
    conditions = ", ".join(f"{it.type} {it.status}" for it in found.status.conditions)
    trouble = "".join(f" {it.message}" for it in found.status.conditions if it.status == "false" and it.type == "Ready")
    steps: tuple[Next, ...] = ()
    if isinstance(found, Agent):
        steps = (Next(operation="agents.inspect", arguments=named, why="shows its state and what it waits on"),)
    return Told(
        f"{found.kind} {named['namespace']}/{named['name']}: {conditions or 'no conditions'}.{trouble}",
        f"steward://{found.kind}/{named['namespace']}/{named['name']}",
        steps,
    )


def _sent(sent: Sent, given: dict[str, Any]) -> Told:
    return Told("Accepted, durably; the agent will handle it.", sent.message_id, _inspect(given))


def _published(published: Published, given: dict[str, Any]) -> Told:
    read = {key: given[key] for key in ("namespace", "name") if key in given}
    step = Next(operation="channels.read", arguments=read, why="reads the channel")
    return Told(f"Published at position {published.position}.", published.message_id, (step,))


def _answer(answer: Answer, given: dict[str, Any]) -> Told:
    if answer.answered:
        return Told("Answered.", answer.message_id)
    named = {"namespace": given.get("namespace", "default"), "agent": given["name"]}
    steps = [Next(operation="questions.list", arguments=named, why="shows what it asks of a person, if it does")]
    if given.get("request_id"):
        steps.insert(0, Next(operation="agents.ask", arguments=given, why="asks for the same answer again"))
    return Told("Not answered in time; the message is kept and will be handled.", answer.message_id, tuple(steps))


def _moved(done: Migrated | HostDrained | NodeDrained, _: dict[str, Any]) -> Told:
    so = done.moved if isinstance(done, Migrated) else done.done
    summary = "Done." if so else "Not done yet: it goes on."
    if isinstance(done, Migrated) and (found := done.selection) is not None:
        summary = (
            f"{found.moved} of {found.total} agents have moved, {found.waiting} wait, {found.missed} missed, "
            f"{found.not_begun} not begun."
        )
    if done.change_id is None:
        return Told(summary)
    arguments = {"change_id": done.change_id, "timeout_s": WAIT_S}
    step = Next(operation="changes.wait", arguments=arguments, why="waits until its claims are verified")
    return Told(summary, done.change_id, (step,))


def _inspect(given: dict[str, Any]) -> tuple[Next, ...]:
    named = {key: given[key] for key in ("namespace", "name") if key in given}
    return (Next(operation="agents.inspect", arguments=named, why="shows what became of it"),)


def _inspection(found: Inspection, _: dict[str, Any]) -> Told:
    waiting = f" waits on {found.waiting_on[0].on}," if found.waiting_on else ""
    return Told(
        f"Agent {found.namespace}/{found.name}: {found.turns} turns,{waiting} {found.inbox} messages waiting, "
        f"{len(found.dead_letters)} dead letters."
        f"{' Its code came to something else when turns were run again.' if found.divergences else ''}",
        f"steward://Agent/{found.namespace}/{found.name}",
    )


def _turn(turn: TurnView, _: dict[str, Any]) -> Told:
    decided = "" if turn.upgrade is None else f", {turn.upgrade.decided} at an upgrade"
    entries = f"{len(turn.journal)} journal entries"
    return Told(
        f"Turn of {turn.namespace}/{turn.name} by {turn.trigger}: {turn.outcome}{decided}, {entries}.",
        turn.turn_id,
    )


def _events(page: EventsFound, given: dict[str, Any]) -> Told:
    arguments = {key: value for key, value in given.items() if key in ("filter", "limit")}
    arguments |= {"after": page.cursor, "wait_s": WAIT_S}
    step = Next(operation="feedback.read", arguments=arguments, why="waits for what happens next")
    return Told(f"{len(page.events)} events.", None, (step,))


def _envelopes(page: ChannelRead, given: dict[str, Any]) -> Told:
    step = Next(
        operation="channels.read", arguments={**given, "after": page.cursor, "wait_s": WAIT_S}, why="waits for the next"
    )
    return Told(f"{len(page.envelopes)} envelopes.", None, (step,))


def _brief(brief: Brief, _: dict[str, Any]) -> Told:
    step = Next(
        operation="feedback.read",
        arguments={"after": brief.cursor, "wait_s": WAIT_S},
        why="waits for what happens from here on",
    )
    asked = Next(operation="questions.list", why="shows the questions that wait for a person")
    return Told(brief.text, None, (asked, step) if brief.questions else (step,))


def _preview(preview: Preview, _: dict[str, Any]) -> Told:
    return Told("Would, and did not: " + " ".join(preview.would))


def _found(found: OperationsFound, _: dict[str, Any]) -> Told:
    best = [it.name for it in found.items[:1]]
    steps = [Next(operation="operations.describe", arguments={"name": it}, why="shows its input") for it in best]
    return Told(f"{len(found.items)} operations.", None, tuple(steps))


def _described(found: OperationDescription, _: dict[str, Any]) -> Told:
    return Told(f"{found.name}: {found.summary}. {found.description}", found.name)


def _called(result: OperationResult, _: dict[str, Any]) -> Told:
    return Told(f"{result.name}: done.", result.name)


def _list(operation: Operation, output: Any, given: dict[str, Any]) -> Told:
    steps: tuple[Next, ...] = ()
    page = getattr(output, "next_page", None)
    if page is not None:
        steps = (Next(operation=operation.name, arguments={**given, "page": page}, why="shows the next page"),)
    return Told(f"{len(output.items)} {operation.noun}{', and more' if page else ''}.", None, steps)


_TELLERS: dict[type[BaseModel], Callable[[Any, dict[str, Any]], Told]] = {
    Plan: _plan,
    CommitResult: _commit,
    Change: _change,
    Agent: _resource,
    Fleet: _resource,
    Channel: _resource,
    Secret: _resource,
    Budget: _resource,
    Route: _resource,
    Sent: _sent,
    Published: _published,
    Answer: _answer,
    Migrated: _moved,
    HostDrained: _moved,
    NodeDrained: _moved,
    Inspection: _inspection,
    TurnView: _turn,
    EventsFound: _events,
    ChannelRead: _envelopes,
    Brief: _brief,
    DoctorReport: lambda report, _: Told(report.text, None, tuple(it.next[0] for it in report.findings[:3])),
    Preview: _preview,
    OperationsFound: _found,
    OperationDescription: _described,
    OperationResult: _called,
}
