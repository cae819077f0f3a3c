"""The verbs that look and that speak to agents: get, send, ask, suspend, wake, stop, migrate, drain, brief, doctor."""

from typing import Annotated, Any

import typer

from controlplane.cli.generated import alias, labelled, named
from controlplane.cli.kinds import named_kind
from controlplane.cli.session import Session, command
from controlplane.resources.catalogue import OPERATIONS

app = typer.Typer()
for _verb in ("send", "ask", "suspend", "wake", "stop", "migrate"):
    alias(app, _verb, OPERATIONS[f"agents.{_verb}"])
alias(app, "drain", OPERATIONS["nodes.drain"])
alias(app, "brief", OPERATIONS["system.brief"])
alias(app, "doctor", OPERATIONS["system.doctor"])


@command(app, "get")
def get(
    session: Session,
    kind: Annotated[str, typer.Argument(help="The kind, as in agents; or kind/name.", metavar="KIND")],
    name: Annotated[str | None, typer.Argument(help="The name, or namespace/name.", metavar="NAME")] = None,
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", metavar="TEXT")] = None,
    labels: Annotated[str | None, typer.Option("--labels", "-l", metavar="K=V")] = None,
) -> None:
    """Show one resource, or list all of a kind."""
    noun, which = named_kind(kind, name, "get")
    given: dict[str, Any] = {"namespace": namespace} if namespace else {}
    if which is not None:
        session.show(session.call(f"{noun}.get", named({"name": which, **given})))
        return
    if labels:
        given["labels"] = labelled(labels, "--labels")
    session.show(all_pages(session, f"{noun}.list", given))


def all_pages(session: Session, operation: str, given: dict[str, Any]) -> dict[str, Any]:
    """Every page of a list, as one."""
    items: list[Any] = []
    page: str | None = None
    while True:
        found = session.call(operation, {**given, "limit": 500, **({"page": page} if page else {})})
        items += found["items"]
        page = found["next_page"]
        if page is None:
            return {"items": items, "next_page": None}
