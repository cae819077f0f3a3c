"""What every command has: which plane, how to print, and what to do with a refusal.

`command` registers a function as a command: it gets a `Session` first, and the options that all
commands share (`--url --token --data --output`) are added to its own. They may stand before the
command too; what stands nearer to it wins. A Refusal is shown and ends with 1, wrong usage with 2.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

import typer

from controlplane.cli.connection import Wanted, find
from schemas.problem import Problem, Refusal

if TYPE_CHECKING:
    from controlplane.cli.client import Plane

Output = Literal["table", "json", "yaml"]
Url = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="Address of the plane. (env: STEWARD_URL)", show_default=False),
]
Token = Annotated[
    str | None,
    typer.Option("--token", metavar="TOKEN", help="Token to show it. (env: STEWARD_TOKEN)", show_default=False),
]
Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Data folder of a plane here. (default: .steward)", show_default=False),
]
OutputOption = Annotated[Output | None, typer.Option("--output", "-o", help="How to print.", show_default=False)]
SHARED: dict[str, Any] = {"url": Url, "token": Token, "data": Data, "output": OutputOption}


@dataclass
class Session:
    """One run of one command."""

    wanted: Wanted = field(default_factory=Wanted)
    output: Output | None = None

    @cached_property
    def plane(self) -> "Plane":
        from controlplane.cli.client import Plane  # `--version` and usage errors need no HTTP

        target = find(self.wanted)
        if not _is_address(target.url):
            raise typer.BadParameter(f"{target.url!r} is no http address", param_hint="--url")
        if target.token is not None and not (target.token.isascii() and target.token.isprintable()):
            raise typer.BadParameter("a token is of printable ASCII characters", param_hint="--token")
        return Plane(target)

    def call(self, operation: str, arguments: dict[str, Any]) -> Any:
        return self.plane.call(operation, arguments)

    def show(self, value: Any) -> None:
        """Print an answer as it was asked for."""
        from controlplane.cli import printing

        printing.show(value, self.output)

    def refuse(self, problem: Problem) -> None:
        from controlplane.cli import printing

        printing.refuse(problem, self.output)

    def say(self, text: str, tone: str = "plain") -> None:
        """A line for the person, beside the answer; nothing where JSON or YAML was asked for."""
        if self.output not in ("json", "yaml"):
            from controlplane.cli import printing

            printing.say(text, tone)

    def close(self) -> None:
        if "plane" in self.__dict__:
            self.plane.close()


def _is_address(url: str) -> bool:
    """Whether a plane can be asked at a URL: what is taken here, HTTP can be sent to."""
    import httpx

    try:
        address = urlsplit(url)
        httpx.URL(url)
        (address.hostname or "").encode("idna")
        return address.scheme in {"http", "https"} and bool(address.hostname) and address.port != 0
    except (ValueError, httpx.InvalidURL):
        return False


Body = Callable[..., None]


def command(
    app: typer.Typer, name: str, *, output: Literal["json"] | None = None, **settings: Any
) -> Callable[[Body], Body]:
    """Register a function as a command; `output` fixes how it prints."""

    def register(body: Body) -> Body:
        app.command(name, help=inspect.getdoc(body), **settings)(declared(body, own_parameters(body), output=output))
        return body

    return register


def own_parameters(body: Body) -> list[inspect.Parameter]:
    """The parameters of a function beside its session."""
    return [part for part in inspect.signature(body, eval_str=True).parameters.values() if part.name != "session"]


def declared(body: Body, own: list[inspect.Parameter], *, output: Literal["json"] | None = None) -> Callable[..., None]:
    """The body as a function that typer can read: its own parameters, and those that all share."""
    shared = {f"shared_{key}": kind for key, kind in SHARED.items() if not (output and key == "output")}

    def run(ctx: typer.Context, **given: Any) -> None:
        session = _session(ctx, {key.removeprefix("shared_"): given.pop(key) for key in shared})
        session.output = output or session.output
        if ctx.invoked_subcommand is not None:
            ctx.find_root().obj = session
            return
        answer(session, lambda: body(session, **given))

    every = [
        inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
        *(part.replace(kind=inspect.Parameter.KEYWORD_ONLY) for part in own),
        *(
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=None)
            for key, kind in shared.items()
        ),
    ]
    run.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
    run.__annotations__ = {part.name: part.annotation for part in every}
    return run


def answer(session: Session, body: Callable[[], None]) -> None:
    """Run a command's body; a refusal is shown, and ends with 1."""
    try:
        body()
    except Refusal as refusal:
        session.refuse(refusal.problem)
        raise typer.Exit(1) from None
    finally:
        session.close()


def _session(ctx: typer.Context, given: dict[str, Any]) -> Session:
    before = ctx.find_root().obj
    session = before if isinstance(before, Session) else Session()
    folder = given.get("data")
    if folder is not None and str(folder).lstrip().startswith(("{", "[", '"')):
        raise typer.BadParameter("is the plane's data folder; a message stands after the name", param_hint="--data")
    nearer = {key: value for key, value in given.items() if key != "output" and value is not None}
    return replace(session, wanted=replace(session.wanted, **nearer), output=given.get("output") or session.output)
