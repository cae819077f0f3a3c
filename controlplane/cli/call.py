"""`steward call`: any operation by its name, JSON in, JSON out. What scripts and other programs use.

The input goes to the plane as it was written; the CLI only makes sure that it is JSON at all, so
that every judgement on it is the plane's, and the same as over REST and MCP.
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli.documents import read_bytes, read_json, read_yaml
from controlplane.cli.session import Session, command
from controlplane.resources.problems import refuse

app = typer.Typer()


@command(app, "call", output="json")
def call(
    session: Session,
    name: Annotated[str, typer.Argument(help="The operation, as in agents.get.", metavar="NAME")],
    text: Annotated[
        str | None, typer.Option("--json", metavar="JSON", help="The input; - reads it from standard input.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", metavar="FILE", help="The input, from a JSON or YAML file.")
    ] = None,
) -> None:
    """Call an operation by name.

    Prints the output as JSON. A Problem is printed as JSON too, and ends with 1.
    """
    if text is not None and file is not None:
        raise typer.BadParameter("give the input by --json or by --file, not both", param_hint="--json")
    session.show(session.plane.call_raw(name, _body(text, file)))


def _body(text: str | None, file: Path | None) -> bytes:
    if file is not None:
        return _of_file(file)
    if text is None:
        return b"{}"
    if text == "-":
        content = typer.get_binary_stream("stdin").read()
        read_json(content, "standard input")
        return content
    read_json(text, "--json")
    return text.encode("utf-8")


def _of_file(path: Path) -> bytes:
    content = typer.get_binary_stream("stdin").read() if str(path) == "-" else read_bytes(path)
    if path.suffix.lower() == ".json":
        read_json(content, str(path))
        return content
    documents = read_yaml(content, str(path))
    if len(documents) != 1:
        found = len(documents)
        raise refuse("MALFORMED_YAML", f"{path} holds {found} documents, not one", source=str(path), documents=found)
    return json.dumps(documents[0], ensure_ascii=False).encode("utf-8")
