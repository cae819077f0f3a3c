"""A command for every operation, made from its declaration: `steward <noun> <verb> …`."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape

from controlplane.cli.documents import read_json
from controlplane.cli.manifests import load, source_files
from controlplane.cli.parameters import FROM_FILES, Parameter, parameters
from controlplane.cli.session import Session, declared
from controlplane.resources.catalogue import OPERATIONS
from controlplane.resources.operation import Operation

NOUNS = tuple(dict.fromkeys(operation.noun for operation in OPERATIONS.values()))
_TYPES: dict[str, Any] = {
    "int": int,
    "float": float,
    "flag": bool,
    "manifest": list[Path],
    "manifests": list[Path],
    "files": list[Path],
}


def group(noun: str) -> typer.Typer:
    """The commands of one noun."""
    app = typer.Typer(no_args_is_help=True, help=f"Operations on {noun}.")
    for operation in OPERATIONS.values():
        if operation.noun == noun:
            alias(app, operation.verb, operation)
    return app


def alias(app: typer.Typer, name: str, operation: Operation) -> None:
    """Register the command of an operation under a name."""
    wanted = parameters(operation)
    own = [_declared(one) for one in wanted]
    if any(one.field in ("manifest", "manifests") for one in wanted):
        own.append(_keyword("code", Path | None, typer.Option(metavar="DIR", help="Source of agents without code.")))
    text = f"{operation.summary}.\n\n{operation.description}"
    app.command(name, help=escape(text), short_help=escape(operation.summary))(declared(_body(operation, wanted), own))


def _body(operation: Operation, wanted: tuple[Parameter, ...]) -> Callable[..., None]:
    def body(session: Session, **given: Any) -> None:
        session.show(session.call(operation.name, arguments(wanted, given)))

    return body


def arguments(wanted: tuple[Parameter, ...], given: dict[str, Any]) -> dict[str, Any]:
    """The input that a command line means; what was not given is not in it."""
    found = {
        one.field: _value(one, given[one.field], given.get("code"))
        for one in wanted
        if given.get(one.field) is not None and given[one.field] is not False
    }
    return named(found) if any(one.field == "namespace" for one in wanted) else found


def named(found: dict[str, Any]) -> dict[str, Any]:
    """The input with `namespace/name` taken apart."""
    if "/" not in found.get("name", ""):
        return found
    namespace, _, name = found["name"].partition("/")
    if found.get("namespace", namespace) != namespace:
        raise typer.BadParameter(f"{found['name']} is not in the namespace {found['namespace']}", param_hint="NAME")
    return {**found, "namespace": namespace, "name": name}


def _value(one: Parameter, raw: Any, code: Path | None) -> Any:
    if one.form == "manifests":
        return load(raw, code)
    if one.form == "manifest":
        return _only(load(raw, code))
    if one.form == "files":
        return {path: text for folder in raw for path, text in source_files(folder).items()}
    if one.form == "json":
        return json_argument(raw, one.metavar)
    if one.form == "list":
        listed = raw.lstrip().startswith("[")
        return read_json(raw, one.option) if listed else [part.strip() for part in raw.split(",")]
    return labelled(raw, one.option) if one.form == "map" else raw


def json_argument(raw: str, source: str) -> Any:
    """A JSON value given as an argument; `-` reads it from standard input."""
    if raw == "-":
        return read_json(typer.get_binary_stream("stdin").read(), "standard input")
    return read_json(raw, source)


def labelled(raw: str, option: str) -> Any:
    """A map of text: `k=v,…`, or a JSON object."""
    if raw.lstrip().startswith("{"):
        return read_json(raw, option)
    pairs = [part.partition("=") for part in raw.split(",")]
    if any(not separator for _, separator, _ in pairs):
        raise typer.BadParameter("must be key=value,… or a JSON object", param_hint=option)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _only(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    if len(manifests) != 1:
        raise typer.BadParameter(
            f"takes one manifest, not {len(manifests)}; `steward propose` takes them together", param_hint="--file"
        )
    return manifests[0]


def _declared(one: Parameter) -> inspect.Parameter:
    """The parameter as typer reads it."""
    kind: Any = Literal.__getitem__(one.choices) if one.choices else _TYPES.get(one.form, str)
    if one.positional:
        info = typer.Argument(help=escape(one.help), show_default=False, metavar=one.metavar)
    elif one.field in FROM_FILES:
        info = typer.Option("--file", "-f", metavar="PATH", help=escape(one.help), show_default=False)
    elif one.field == "namespace":
        info = typer.Option("--namespace", "-n", metavar="TEXT", help=escape(one.help), show_default=False)
    elif one.form == "flag":
        info = typer.Option(one.option, help=escape(one.help), show_default=False)
    else:
        metavar = None if one.choices else one.metavar
        info = typer.Option(one.option, metavar=metavar, help=escape(one.help), show_default=False)
    return _keyword(one.field, kind if one.required else kind | None, info, required=one.required)


def _keyword(name: str, kind: Any, info: Any, *, required: bool = False) -> inspect.Parameter:
    default = inspect.Parameter.empty if required else None
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[kind, info], default=default)
