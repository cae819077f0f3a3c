"""`steward mcp-config`: what an MCP client needs in order to operate this plane."""

import json
from typing import Annotated

import typer

from controlplane.cli.connection import Target, find
from controlplane.cli.printing import clean, say
from controlplane.cli.session import Session, command

VARIABLE = "STEWARD_TOKEN"
app = typer.Typer()


@command(app, "mcp-config", output="json")
def mcp_config(
    session: Session,
    full: Annotated[bool, typer.Option("--full", help="One tool for every operation, in place of a dozen.")] = False,
    show_token: Annotated[
        bool, typer.Option("--show-token", help=f"Print the token itself, in place of a reference to {VARIABLE}.")
    ] = False,
) -> None:
    """Print the configuration of an MCP client for this plane, as JSON."""
    target = find(session.wanted)
    print(clean(json.dumps(config(target, full=full, show_token=show_token), indent=2)))
    if not show_token:
        say(
            f"The client reads the token from {VARIABLE}: export {VARIABLE}=$(cat {target.data / 'admin.token'})", "dim"
        )


def config(target: Target, *, full: bool, show_token: bool) -> dict[str, object]:
    """The `mcpServers` object."""
    token = target.token if show_token and target.token else f"${{{VARIABLE}}}"
    server = {
        "type": "http",
        "url": f"{target.url}/mcp/full" if full else f"{target.url}/mcp",
        "headers": {"Authorization": f"Bearer {token}"},
    }
    return {"mcpServers": {"steward": server}}
