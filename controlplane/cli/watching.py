"""The verbs that go on looking: feedback and its `--follow`, top.

Following reads the log over SSE from a cursor, and goes on from the last cursor whenever the
stream ends: each event is printed once, in order, however often the line breaks.
"""

import json
import time
from typing import Annotated, Any

import typer

from controlplane.cli import printing
from controlplane.cli.generated import group
from controlplane.cli.live import show_live
from controlplane.cli.session import Output, Session, command, declared, own_parameters
from controlplane.cli.shapes import event_line
from controlplane.cli.yaml_form import dump
from schemas.problem import Refusal

RETRY_S_MIN, RETRY_S_MAX = 0.5, 10.0
feedback_app = group("feedback")
feedback_app.info.no_args_is_help = False
app = typer.Typer()


def feedback(
    session: Session,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens from now on.")] = False,
    after: Annotated[str | None, typer.Option(metavar="CURSOR", help="Start behind this cursor.")] = None,
    new: Annotated[bool, typer.Option("--new", help="Leave out what happened before.")] = False,
    types: Annotated[str | None, typer.Option("--types", metavar="A,B", help="As in change.*,turn.failed.")] = None,
    kind: Annotated[str | None, typer.Option(metavar="KIND", help="Only about this kind, as in Agent.")] = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", metavar="TEXT", help="Only about this namespace.")
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Only about this name.")] = None,
    change_id: Annotated[str | None, typer.Option(metavar="CHANGE_ID", help="Only about this change.")] = None,
) -> None:
    """Read the feedback log; with `--follow`, go on until Ctrl-C."""
    wanted = {"kind": kind, "namespace": namespace, "name": name, "change_id": change_id}
    narrowed: dict[str, Any] = {key: value for key, value in wanted.items() if value is not None}
    if types:
        narrowed["types"] = types.split(",")
    if new:
        after = session.call("system.brief", {})["cursor"]
    if not follow:
        _read_all(session, after, narrowed)
        return
    try:
        _follow(session, after, narrowed)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


feedback_app.callback(invoke_without_command=True, help=feedback.__doc__)(declared(feedback, own_parameters(feedback)))


@command(app, "top")
def top(
    session: Session,
    every_s: Annotated[float, typer.Option(min=0.2, max=60, help="Seconds between two looks.")] = 2.0,
) -> None:
    """Agents, changes and feedback, live. Where there is no terminal, once."""
    if session.output in ("json", "yaml"):
        session.show(session.call("system.status", {}))
        return
    show_live(session.plane, every_s)


def _read_all(session: Session, after: str | None, narrowed: dict[str, Any]) -> None:
    """Everything after the cursor, page by page."""
    events: list[Any] = []
    while True:
        given = {**({"after": after} if after else {}), **({"filter": narrowed} if narrowed else {}), "limit": 500}
        found = session.call("feedback.read", given)
        events += found["events"]
        if not found["events"] or found["cursor"] == after:
            session.show({"events": events, "cursor": found["cursor"]})
            return
        after = found["cursor"]


def _follow(session: Session, after: str | None, narrowed: dict[str, Any]) -> None:
    """Print events as they come; a line that breaks is taken up again behind the last one printed."""
    pause = RETRY_S_MIN
    while True:
        try:
            for cursor, event in session.plane.events(after, narrowed):
                after = cursor or after
                pause = RETRY_S_MIN
                if event is not None:
                    _print_event(event, session.output)
        except Refusal as refusal:
            if refusal.problem.recovery != "wait":
                raise
            session.say(f"{refusal.problem.detail}; trying again", "warn")
        time.sleep(pause)
        pause = min(pause * 2, RETRY_S_MAX)


def _print_event(event: dict[str, Any], output: Output | None) -> None:
    if output == "json":
        print(printing.clean(json.dumps(event, ensure_ascii=False)), flush=True)
    elif output == "yaml":
        print("---\n" + printing.clean(dump(event)), end="", flush=True)
    else:
        print(printing.clean(event_line(event)), flush=True)
