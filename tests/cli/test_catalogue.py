"""Every operation of the catalogue is a command, and has a page."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from controlplane.cli.parameters import parameters
from controlplane.cli.reference import stale
from controlplane.cli.spelling import spell, usage
from controlplane.resources.catalogue import OPERATIONS
from controlplane.resources.operation import Operation
from tests.cli.conftest import Steward
from tests.cli.standin import StandIn

EVERY = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
PAGES = Path(__file__).parents[2] / "docs" / "operations"


@EVERY
def test_the_command_of_an_operation_sends_its_example(
    operation: Operation, plane: StandIn, steward: Steward, tmp_path: Path
) -> None:
    """`steward <noun> <verb> …` calls the operation with the input that was said."""
    words = _words(operation, tmp_path)
    ran = steward(*words, "--url", plane.url, "--output", "json")
    assert (ran.code, ran.err) == (0, "")
    assert words[:2] == operation.name.split(".")
    assert plane.calls[0][0] == operation.name
    assert plane.inputs(operation.name) == [operation.example]


@EVERY
def test_what_is_spelled_is_what_is_called(operation: Operation, plane: StandIn, steward: Steward) -> None:
    """The command line of any call, run, makes that very call."""
    _, *words = shlex.split(spell(operation.name, operation.example))
    assert steward(*words, "--url", plane.url).code == 0
    assert plane.inputs(operation.name) == [operation.example]


@EVERY
def test_a_command_explains_itself(operation: Operation, steward: Steward) -> None:
    """`--help` says what the operation does, and names every field of its input."""
    ran = steward(*operation.name.split("."), "--help")
    text = " ".join(ran.out.split())
    assert ran.code == 0
    assert operation.summary in text
    for one in parameters(operation):
        assert (one.metavar if one.positional else one.option) in ran.out


def test_every_operation_has_a_page_that_is_up_to_date() -> None:
    """The reference is what the catalogue says; `python -m controlplane.cli.reference docs/operations` makes it so."""
    assert stale(PAGES) == []
    for operation in OPERATIONS.values():
        page = (PAGES / f"{operation.noun}.md").read_text(encoding="utf-8")
        for said in (
            f"## {operation.name}\n",
            operation.summary,
            operation.path,
            operation.tool,
            usage(operation.name),
        ):
            assert said in page, f"the page of {operation.name} does not say {said!r}"


def test_a_page_that_was_edited_is_found(tmp_path: Path) -> None:
    """A page that says something else, and one of no operation, are out of date."""
    for page in PAGES.glob("*.md"):
        (tmp_path / page.name).write_bytes(page.read_bytes())
    assert stale(tmp_path) == []
    (tmp_path / "agents.md").write_text("by hand")
    (tmp_path / "ghosts.md").write_text("none")
    assert stale(tmp_path) == ["agents.md", "ghosts.md"]


def _words(operation: Operation, folder: Path) -> list[str]:
    """The example as words of a command, with files where a command takes files."""
    words = operation.name.split(".")
    for one in parameters(operation):
        if one.field not in operation.example:
            continue
        value = operation.example[one.field]
        if one.form in ("manifest", "manifests"):
            value = _file(folder / "manifest.yaml", value)
        elif one.form == "files":
            value = _folder(folder / "code", value)
        elif one.form == "flag":
            assert value is True
            words.append(one.option)
            continue
        elif one.form == "json" or not isinstance(value, str):
            value = json.dumps(value)
        words += [value] if one.positional else [one.option, value]
    return words


def _file(path: Path, value: Any) -> str:
    documents = value if isinstance(value, list) else [value]
    path.write_text(yaml.safe_dump_all(documents), encoding="utf-8")
    return str(path)


def _folder(path: Path, files: dict[str, str]) -> str:
    path.mkdir()
    for name, text in files.items():
        (path / name).write_text(text, encoding="utf-8")
    return str(path)
