"""The reference of operations, as Markdown, from the catalogue: a page for each noun, and an index.

`python -m controlplane.cli.reference docs/operations` writes it, `--check` only says what is out
of date. Nothing in these pages is written by hand: what they say of an operation is what its
declaration says, and what REST, MCP and the CLI project from it.
"""

import json
import re
import sys
from pathlib import Path

from controlplane.cli.notation import field_type, fields, notation
from controlplane.cli.parameters import parameters
from controlplane.cli.spelling import spell, usage
from controlplane.resources.catalogue import OPERATIONS
from controlplane.resources.operation import Operation
from controlplane.resources.problems import REASONS

COMMON = (
    "UNAUTHENTICATED",
    "FORBIDDEN",
    "FOREIGN_NAMESPACE",
    "MALFORMED_JSON",
    "NOT_AN_OBJECT",
    "TOO_LARGE",
    "UNKNOWN_FIELD",
    "MISSING_FIELD",
    "INVALID_VALUE",
    "INVALID_NAME",
    "OUT_OF_RANGE",
    "CONFLICT",
    "NOT_READY",
    "INTERNAL",
)
EFFECTS = {"read": "reads", "change": "changes", "destroy": "changes, and may destroy"}
SCOPES = {
    "namespace": "the namespace of the input",
    "record": "the namespace of the record that the id names",
    "installation": "the installation",
}
MADE = "<!-- made by `python -m controlplane.cli.reference docs/operations`; do not edit -->\n"


def pages() -> dict[str, str]:
    """Every page: file name → text."""
    nouns = list(dict.fromkeys(operation.noun for operation in OPERATIONS.values()))
    made = {f"{noun}.md": _page(noun) for noun in nouns}
    return {"README.md": _index(nouns), **made}


def stale(folder: Path) -> list[str]:
    """The pages that are not what the catalogue says, or that it does not know."""
    wanted = pages()
    found = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.md")}
    return sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))


def write(folder: Path) -> list[str]:
    """Write what is out of date, remove what no operation stands behind; answers the names."""
    names = stale(folder) if folder.is_dir() else sorted(pages())
    folder.mkdir(parents=True, exist_ok=True)
    wanted = pages()
    for name in names:
        if name in wanted:
            (folder / name).write_text(wanted[name], encoding="utf-8")
        else:
            (folder / name).unlink()
    return names


def _index(nouns: list[str]) -> str:
    lines = [MADE, "# Operations", ""]
    lines += [
        "Every operation, once. Input is one flat object; what is left out takes its default. Over REST each has its",
        "own route, and besides `POST /v1/operations/{operation}/call` with its input as body. Over MCP each is a tool",
        "of `/mcp/full`, and can be called by `operations_call` on `/mcp`. On the command line each is `steward <noun>",
        "<verb>`, and can be called by `steward call NAME --json '{…}'`.",
        "",
    ]
    for noun in nouns:
        lines += [f"## [{noun}]({noun}.md)", "", "| operation | what it does | effect | role |", "|---|---|---|---|"]
        for operation in _of(noun):
            link = f"[`{operation.name}`]({noun}.md#{_anchor(operation)})"
            lines.append(f"| {link} | {_cell(operation.summary)} | {operation.effect} | {operation.role} |")
        lines.append("")
    lines += ["## Problems that any operation may answer", "", *_problem_table(COMMON)]
    return "\n".join(lines) + "\n"


def _page(noun: str) -> str:
    lines = [MADE, f"# {noun}", ""]
    shown: dict[str, str] = {}
    for operation in _of(noun):
        lines += _operation(operation, shown)
    return "\n".join(lines).rstrip() + "\n"


def _operation(operation: Operation, shown: dict[str, str]) -> list[str]:
    """One operation's section; `shown` says where on the page a model was opened already."""
    example = json.dumps(operation.example, ensure_ascii=False, indent=2)
    return [
        f"## {operation.name}",
        "",
        f"**{operation.summary}.** {operation.description}",
        "",
        *_facts(operation),
        "",
        "### Input",
        "",
        *_input_table(operation),
        "",
        "### Output",
        "",
        *_output(operation, shown),
        "",
        "### Problems",
        "",
        *(_problem_table(operation.problems) if operation.problems else ["Only those that any operation may answer."]),
        "",
        "### Example",
        "",
        "```sh",
        spell(operation.name, operation.example),
        "```",
        "",
        "```json",
        example,
        "```",
        "",
    ]


def _facts(operation: Operation) -> list[str]:
    once = "gives the same again" if operation.repeats_safely else "acts again"
    kept = "; with `request_id`, the first answer comes again" if operation.imperative else ""
    preview = ["| preview | `dry_run` answers what it would do, and does nothing |"] if operation.imperative else []
    rows = [
        "| | |",
        "|---|---|",
        f"| REST | `{operation.method} {operation.path}` |",
        f"| MCP | tool `{operation.tool}` |",
        f"| CLI | `{usage(operation.name)}` |",
        f"| role | `{operation.role}`{', or an agent for itself' if operation.agent_may else ''} |",
        f"| reach | {SCOPES[operation.scope]} |",
        f"| effect | {EFFECTS[operation.effect]} |",
        f"| repeated | {once}{kept} |",
    ]
    untrusted = ", ".join(f"`{path}`" for path in operation.untrusted)
    return rows + preview + ([f"| from agents or outside | {untrusted} |"] if untrusted else [])


def _input_table(operation: Operation) -> list[str]:
    schema = operation.input.model_json_schema()
    if not schema.get("properties"):
        return ["None."]
    forms = {one.field: one for one in parameters(operation)}
    rows = ["| field | type | default | command line | |", "|---|---|---|---|---|"]
    for name, part, required in fields(schema):
        one = forms[name]
        given = f"`{one.metavar}`" if one.positional else f"`{one.option}`"
        default = "must be given" if required else f"`{json.dumps(part.get('default'))}`"
        kind = _cell(field_type(part, schema.get("$defs", {})))
        rows.append(f"| `{name}` | {kind} | {default} | {given} | {_cell(part.get('description', ''))} |")
    return rows


def _output(operation: Operation, shown: dict[str, str]) -> list[str]:
    """The shape of the output, each model opened once on a page."""
    schema = operation.output.model_json_schema(mode="serialization")
    title = operation.output.__name__
    if title in shown:
        return [f"`{title}`, as [above]({shown[title]})."]
    body = notation(schema, frozenset(shown))
    words = set(re.findall(r"\w+", " ".join(line.partition(": ")[2] for line in body)))
    used = [name for name in schema.get("$defs", {}) if name in shown and name in words]
    lines = ["```", *body, "```"]
    lines += ["", " ".join(f"`{name}` is as [above]({shown[name]})." for name in used)] if used else []
    for name in (title, *schema.get("$defs", {})):
        shown.setdefault(name, f"#{_anchor(operation)}")
    return lines


def _problem_table(reasons: tuple[str, ...]) -> list[str]:
    rows = ["| reason | status | | way out |", "|---|---|---|---|"]
    for name in reasons:
        reason = REASONS[name]
        rows.append(f"| `{name}` | {reason.status} | {reason.title} | `{reason.recovery}` |")
    return rows


def _of(noun: str) -> list[Operation]:
    return [operation for operation in OPERATIONS.values() if operation.noun == noun]


def _anchor(operation: Operation) -> str:
    return operation.name.replace(".", "").lower()


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def main(arguments: list[str]) -> int:
    """Write the pages, or with `--check` name those that are out of date."""
    check = "--check" in arguments
    folder = Path(next(one for one in arguments if one != "--check"))
    names = stale(folder) if check else write(folder)
    print("\n".join(names) if names else "all pages are up to date")
    return int(check and bool(names))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
