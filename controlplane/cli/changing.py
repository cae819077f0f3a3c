"""The verbs that change what is wanted: propose, see, commit, wait. Each is a few operations in a row.

Nothing is committed that was not shown, and nothing without a yes: from the person at the terminal,
or by `--yes`. A plan that went stale is not committed again behind anybody's back.
They end with 0 when the change is done and no claim was missed, else with 1.
"""

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from controlplane.cli import printing, shapes
from controlplane.cli.generated import alias, named
from controlplane.cli.kinds import named_kind
from controlplane.cli.manifests import load
from controlplane.cli.session import Session, command
from controlplane.resources.catalogue import OPERATIONS

WAIT_STEP_S = 20.0
app = typer.Typer()
alias(app, "propose", OPERATIONS["resources.propose"])
alias(app, "commit", OPERATIONS["plans.commit"])

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Commit without asking.")]
OnMiss = Annotated[str | None, typer.Option(metavar="keep|revert|hold", help="What to do when a claim is missed.")]
Timeout = Annotated[float, typer.Option(metavar="S", min=0, help="How long to wait until the change is done.")]


@command(app, "apply")
def apply(
    session: Session,
    file: Annotated[list[Path], typer.Option("--file", "-f", metavar="PATH", help="YAML, JSON, or a folder of them.")],
    code: Annotated[Path | None, typer.Option(metavar="DIR", help="Source of agents whose manifest has none.")] = None,
    yes: Yes = False,
    on_miss: OnMiss = None,
    timeout_s: Timeout = 120,
) -> None:
    """Propose manifests, show the plan, commit it, and wait until it is done and verified."""
    plan = session.call("resources.propose", {"manifests": load(file, code)})
    _carry_out(session, plan, yes=yes, on_miss=on_miss, timeout_s=timeout_s)


@command(app, "delete")
def delete(
    session: Session,
    kind: Annotated[str, typer.Argument(help="The kind, as in agent; or kind/name.", metavar="KIND")],
    name: Annotated[str | None, typer.Argument(help="The name, or namespace/name.", metavar="NAME")] = None,
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", metavar="TEXT")] = None,
    yes: Yes = False,
    timeout_s: Timeout = 120,
) -> None:
    """Show what deleting a resource would do, commit it, and wait until it is gone."""
    noun, which = named_kind(kind, name, "delete")
    if which is None:
        raise typer.BadParameter("say which one", param_hint="NAME")
    where = {"namespace": namespace} if namespace else {}
    plan = session.call(f"{noun}.delete", named({"name": which, **where}))
    _carry_out(session, plan, yes=yes, on_miss=None, timeout_s=timeout_s)


@command(app, "undo")
def undo(
    session: Session,
    change_id: Annotated[str, typer.Argument(metavar="CHANGE_ID", help="The change to take back.")],
    yes: Yes = False,
    timeout_s: Timeout = 120,
) -> None:
    """Take a change back: show the plan that does, commit it, and wait."""
    plan = session.call("changes.revert", {"change_id": change_id})
    _carry_out(session, plan, yes=yes, on_miss=None, timeout_s=timeout_s)


@command(app, "wait")
def wait(
    session: Session,
    change_id: Annotated[str, typer.Argument(metavar="CHANGE_ID")],
    timeout_s: Timeout = 120,
) -> None:
    """Wait until a change is done, and show the verdicts of its claims."""
    _conclude(session, wait_for(session, change_id, timeout_s))


def wait_for(session: Session, change_id: str, timeout_s: float) -> dict[str, Any]:
    """The change when it is done, or as it is when the time is over."""
    until = time.monotonic() + timeout_s
    while True:
        left = max(0.0, until - time.monotonic())
        change = session.call("changes.wait", {"change_id": change_id, "timeout_s": min(left, WAIT_STEP_S)})
        if change["done"] or left <= WAIT_STEP_S:
            return dict(change)


def _carry_out(session: Session, plan: dict[str, Any], *, yes: bool, on_miss: str | None, timeout_s: float) -> None:
    """Show the plan, have it agreed to, commit it, wait for it."""
    if not plan["steps"]:
        session.show(plan)
        return
    printing.before(shapes.plan(plan), session.output)
    _agreed(yes=yes)
    wanted = {"plan_id": plan["plan_id"], **({"on_miss": on_miss} if on_miss else {})}
    result = session.call("plans.commit", wanted)
    if result["change_id"] is None:
        session.show(result)
        raise typer.Exit(0 if result["outcome"] == "superseded" else 1)
    session.say(f"{result['outcome']}: waiting for {result['change_id']}", "dim")
    _conclude(session, wait_for(session, result["change_id"], timeout_s))


def _agreed(*, yes: bool) -> None:
    """Ask at a terminal; where nobody can be asked, the command itself is the wish."""
    if yes or not sys.stdin.isatty():
        return
    if not typer.confirm("Commit this plan?", err=True):
        raise typer.Exit(1)


def _conclude(session: Session, change: dict[str, Any]) -> None:
    session.show(change)
    if not change["done"] or change["outcome"] == "missed":
        raise typer.Exit(1)
