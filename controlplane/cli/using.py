"""The verb `usage`: without a verb of the noun behind it, the report of the last day."""

from typing import Annotated

import typer

from controlplane.cli.generated import group
from controlplane.cli.session import Session, declared, own_parameters

usage_app = group("usage")
usage_app.info.no_args_is_help = False


def usage(
    session: Session,
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", metavar="TEXT", help="Only of this.")] = None,
    by: Annotated[str, typer.Option("--by", metavar="WHAT", help="As in agent, fleet, effect, meter, day.")] = "agent",
) -> None:
    """What was used in the last 24 hours, and what it costs; `usage report` has more to choose from."""
    given = {"by": by, "limit": 500, **({"namespace": namespace} if namespace else {})}
    session.show(session.call("usage.report", given))


usage_app.callback(invoke_without_command=True, help=usage.__doc__)(declared(usage, own_parameters(usage)))
