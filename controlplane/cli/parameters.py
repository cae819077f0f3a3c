"""One operation's input, as parameters of a command: the one place that decides how a field is given.

What must be given, and what a command is about (the first of `name`, `data`, `query` that need not be), stands in
order after the command; everything else is an option of the field's name. A `name` may carry its namespace, as in
`default/echo`. Objects and lists are JSON text, or `a,b` and `k=v,…` where they hold plain text.
Manifests and code come from files. What is not given is not sent: defaults are the plane's.
"""

from dataclasses import dataclass
from typing import Any, Literal

from controlplane.resources.operation import Operation

Form = Literal["text", "int", "float", "flag", "json", "list", "map", "manifest", "manifests", "files"]
FROM_FILES: dict[str, Form] = {"manifest": "manifest", "manifests": "manifests", "files": "files"}
ABOUT = ("name", "data", "query")
TAKEN = ("url", "token", "data", "output", "file", "code")
_PLAIN: dict[str, Form] = {"string": "text", "integer": "int", "number": "float", "boolean": "flag"}


@dataclass(frozen=True)
class Parameter:
    """One field of an input, as it is given on a command line."""

    field: str
    form: Form
    positional: bool
    required: bool
    choices: tuple[str, ...]
    help: str

    @property
    def option(self) -> str:
        return "--file" if self.form in FROM_FILES.values() else "--" + self.field.replace("_", "-")

    @property
    def metavar(self) -> str:
        kind = {"json": "JSON", "list": "A,B", "map": "K=V", "int": "N", "float": "N"}
        return self.field.upper() if self.positional else kind.get(self.form, "TEXT")


def parameters(operation: Operation) -> tuple[Parameter, ...]:
    """The parameters of an operation's command, positional ones first."""
    schema = operation.input.model_json_schema()
    required, fields = schema.get("required", []), schema.get("properties", {})
    first = next((field for field in fields if field in ABOUT and field not in required), None)
    found = [
        _parameter(
            field, part, schema.get("$defs", {}), required=field in required, positional=field in (first, *required)
        )
        for field, part in fields.items()
    ]
    return tuple(sorted(found, key=lambda one: (not one.positional, not one.required)))


def _parameter(
    field: str, part: dict[str, Any], defs: dict[str, Any], *, required: bool, positional: bool
) -> Parameter:
    if field in FROM_FILES:
        return Parameter(
            field, FROM_FILES[field], positional=False, required=required, choices=(), help=_from_files(field)
        )
    if field in TAKEN and not positional:
        raise ValueError(f"the field {field} has the name of an option that every command has")
    kind = _resolved(part, defs)
    choices = tuple(str(choice) for choice in kind.get("enum", ()))
    return Parameter(field, _form(kind, defs), positional, required, choices, _help(field, part, kind, defs))


def _resolved(part: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    """The schema without its reference and without the null that an absent value may be."""
    if "$ref" in part:
        return _resolved(defs[part["$ref"].rpartition("/")[2]], defs)
    options = [option for option in part.get("anyOf", ()) if option.get("type") != "null"]
    return _resolved(options[0], defs) if len(options) == 1 else part


def _form(kind: dict[str, Any], defs: dict[str, Any]) -> Form:
    if kind.get("type") == "array":
        return "list" if _texts(kind.get("items", {}), defs) else "json"
    if kind.get("type") == "object" and "properties" not in kind:
        values = [kind.get("additionalProperties"), *kind.get("patternProperties", {}).values()]
        return "map" if any(isinstance(value, dict) and value.get("type") == "string" for value in values) else "json"
    return _PLAIN.get(kind.get("type", ""), "json")


def _texts(item: dict[str, Any], defs: dict[str, Any]) -> bool:
    options = item.get("anyOf") or [item]
    return all(_resolved(option, defs).get("type") == "string" for option in options)


def _help(field: str, part: dict[str, Any], kind: dict[str, Any], defs: dict[str, Any]) -> str:
    said = [part.get("description"), *(option.get("description") for option in part.get("anyOf", ()))]
    text = next((str(one) for one in said if one), "") or str(kind.get("description", ""))
    if field == "name":
        text = "The name; where there are namespaces, also namespace/name."
    default = part.get("default")
    if default not in (None, False):
        text = f"{text} (default: {default})"
    if _form(kind, defs) == "json":
        text = f"{text} JSON; - reads it from standard input."
    return " ".join(text.split())


def _from_files(field: str) -> str:
    if field == "files":
        return "A folder of source files, or one file; may be given again."
    return "A YAML or JSON file, or - for standard input" + ("; a folder, too." if field == "manifests" else ".")
