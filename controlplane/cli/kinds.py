"""The words for a kind: `agent`, `agents`, `Agent` mean the same; `agent/echo` says which one, too."""

import typer

from controlplane.resources.catalogue import OPERATIONS

NOUNS = tuple(
    operation.noun
    for operation in OPERATIONS.values()
    if operation.name == f"{operation.noun}.propose" and f"{operation.noun}.get" in OPERATIONS
)


def named_kind(kind: str, name: str | None, verb: str) -> tuple[str, str | None]:
    """The noun and the name that are meant by `KIND [NAME]` or `KIND/NAME`."""
    word, _, rest = kind.partition("/")
    noun = next((noun for noun in NOUNS if word.lower() in (noun, noun.removesuffix("s"), _singular(noun))), None)
    if noun is None or f"{noun}.{verb}" not in OPERATIONS:
        raise typer.BadParameter(f"there is no kind {word!r}; kinds are {', '.join(NOUNS)}", param_hint="KIND")
    if rest and name:
        raise typer.BadParameter("say the name once", param_hint="NAME")
    return noun, rest or name


def _singular(noun: str) -> str:
    return noun.removesuffix("ies") + "y" if noun.endswith("ies") else noun.removesuffix("s")
