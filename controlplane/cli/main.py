"""`steward`: the catalogue on a command line.

Starting is fast because nothing is imported that the command at hand does not need: verbs are
found in the table below, nouns in the catalogue, and only `up` ever imports the plane itself.
"""

import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from controlplane import VERSION
from controlplane.cli.connection import Wanted
from controlplane.cli.session import Data, OutputOption, Session, Token, Url

VERBS = {
    "up": "up",
    "down": "up",
    "init": "starter",
    "mcp-config": "mcp_config",
    "call": "call",
    "propose": "changing",
    "commit": "changing",
    "apply": "changing",
    "delete": "changing",
    "wait": "changing",
    "undo": "changing",
    "get": "looking",
    "send": "looking",
    "ask": "looking",
    "chat": "chat",
    "suspend": "looking",
    "wake": "looking",
    "stop": "looking",
    "migrate": "looking",
    "drain": "looking",
    "brief": "looking",
    "doctor": "looking",
    "top": "watching",
    "feedback": "watching",
    "usage": "using",
}

GROUPS = ("feedback", "usage")  # verbs that are nouns, too


class Commands(TyperGroup):
    """The verbs, and a group for every noun of the catalogue, each made when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        from controlplane.cli.generated import NOUNS

        return [*VERBS, *(noun for noun in NOUNS if noun not in VERBS)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in VERBS:
            module = import_module(f"controlplane.cli.{VERBS[cmd_name]}")
            if cmd_name in GROUPS:
                return _named(typer.main.get_group(getattr(module, f"{cmd_name}_app")), cmd_name)
            return typer.main.get_group(module.app).commands[cmd_name]
        from controlplane.cli.generated import NOUNS, group

        return _named(typer.main.get_group(group(cmd_name)), cmd_name) if cmd_name in NOUNS else None


def _named(found: TyperGroup, name: str) -> TyperGroup:
    found.name = name
    return found


def _version(value: bool) -> None:
    if value:
        print(f"steward {VERSION}")
        raise typer.Exit


def _root(
    ctx: typer.Context,
    *,
    url: Url = None,
    token: Token = None,
    data: Data = None,
    output: OutputOption = None,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """A control plane for AI agents: predict, commit, verify."""
    ctx.obj = Session(Wanted(url, token, data), output)


app = typer.Typer(cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.callback()(_root)


def main() -> None:
    """The entry of the `steward` script."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    app(prog_name="steward")


if __name__ == "__main__":
    main()
