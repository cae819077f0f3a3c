"""An operation with its arguments, said as a command that a person can run.

The inverse of what the generated commands read: running what `spell` says calls the same
operation with the same input. What comes from files, or has no form on a command line, is said
as `steward call`.
"""

import json
import shlex
from typing import Any

from controlplane.cli.parameters import FROM_FILES, Parameter, parameters
from controlplane.resources.catalogue import OPERATIONS


def spell(operation: str, arguments: dict[str, Any]) -> str:
    """The command line of a call."""
    known = OPERATIONS.get(operation)
    wanted = parameters(known) if known else ()
    if known is None or not _sayable(wanted, arguments):
        return f"steward call {shlex.quote(operation)} --json {shlex.quote(_json(arguments))}"
    about = [_about(one, arguments) for one in wanted if one.positional and one.field in arguments]
    by_name = "name" in arguments and any(one.positional and one.field == "name" for one in wanted)
    options: list[str] = []
    for one in wanted:
        said = one.positional or one.field not in arguments or (by_name and one.field == "namespace")
        if not said:
            options += [one.option] if one.form == "flag" else [one.option, _value(one, arguments[one.field])]
    hidden = any(word.startswith("-") for word in about)  # else taken for options
    words = [*options, "--", *about] if hidden else [*about, *options]
    return " ".join(shlex.quote(word) for word in ["steward", *operation.split("."), *words])


def usage(operation: str) -> str:
    """The command of an operation with names for what is to be given."""
    words = ["steward", *operation.split(".")]
    for one in parameters(OPERATIONS[operation]):
        if one.positional:
            words.append(one.metavar if one.required else f"[{one.metavar}]")
        elif one.required:
            words += [one.option, one.metavar]
    return " ".join(words)


def _sayable(wanted: tuple[Parameter, ...], arguments: dict[str, Any]) -> bool:
    """Whether every argument has a form on a command line, and nothing that must be given is missing."""
    fields = {one.field: one for one in wanted}
    if not set(arguments) <= set(fields) or any(one.required and one.field not in arguments for one in wanted):
        return False
    return all(_plain(fields[field], value) for field, value in arguments.items())


def _plain(one: Parameter, value: Any) -> bool:
    if one.field in FROM_FILES or value is None:
        return False
    if one.form == "flag":
        return value is True
    return one.form == "json" or isinstance(value, dict | list | str | int | float)


def _about(one: Parameter, arguments: dict[str, Any]) -> str:
    if one.field == "name" and "namespace" in arguments:
        return f"{arguments['namespace']}/{arguments['name']}"
    return _value(one, arguments[one.field])


def _value(one: Parameter, value: Any) -> str:
    return value if isinstance(value, str) and one.form != "json" else _json(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
