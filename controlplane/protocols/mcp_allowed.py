"""Which processes connections may start here, with which variables: what the settings of the installation list. Pure.

Asked when a connection is proposed, and again before a process is started: settings change, and connections stay.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.resources.problems import refuse
from schemas.mcp_connection import McpConnection


@dataclass(frozen=True)
class Startable:
    """Beginnings of command lines, and names of variables; none of either, unless somebody says so."""

    commands: Sequence[Sequence[str]] = ()
    variables: Sequence[str] = ()

    def require(self, spec: McpConnection, connection: str, place: str = "") -> list[str]:
        """The command line of a connection to a process; raises NOT_SET_UP. `place` is a pointer to its spec."""
        options = spec.options
        command = [options.command or "", *options.args]
        about = {"connection": connection}
        if not any(words and command[: len(words)] == list(words) for words in self.commands):
            detail = (
                f"connection {connection} would start {command[0]}, which this installation does not allow: "
                "its setting STEWARD_MCP_COMMANDS lists what it does"
            )
            about |= {"command": command[0], "setting": "STEWARD_MCP_COMMANDS"}
            raise refuse("NOT_SET_UP", detail, field=f"{place}/options/command" if place else None, **about)
        given = {*options.env, *([options.env_from_secret] if options.env_from_secret else ())}
        if beyond := sorted(given - set(self.variables)):  # one as PATH decides what an allowed command line runs
            detail = (
                f"connection {connection} would set the variable {beyond[0]}, which this installation does not allow: "
                "its setting STEWARD_MCP_VARIABLES lists what it does"
            )
            about |= {"variable": beyond[0], "setting": "STEWARD_MCP_VARIABLES"}
            at = "env_from_secret" if beyond[0] == options.env_from_secret else "env"
            raise refuse("NOT_SET_UP", detail, field=f"{place}/options/{at}" if place else None, **about)
        return command
