"""Every `steward …` line that the README, the tutorial and the example show is one that the CLI takes."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from controlplane.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "docs/tutorial.md", "examples/machine_watch/README.md")
LINE = re.compile(r"(?:^|`|&& )(?:\.venv/bin/)?steward ([a-z][^`#\n&]*)", re.MULTILINE)
COMMANDS = [
    (page, found.group(1).strip()) for page in PAGES for found in LINE.finditer((ROOT / page).read_text("utf-8"))
]


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_a_documented_command_is_one_that_the_cli_takes(page: str, line: str) -> None:
    """Verb, options and arguments parse; nothing is run."""
    command = typer.main.get_command(app)
    words = shlex.split(line)
    context = typer.Context(command, info_name="steward")
    while hasattr(command, "get_command"):
        found = command.get_command(context, words[0]) if words and not words[0].startswith("-") else None
        if found is None:
            break
        command, words = found, words[1:]
    command.make_context(line, words)


def test_the_pages_show_commands() -> None:
    """The pattern finds them, so that the test above tests something."""
    assert {page for page, _ in COMMANDS} == set(PAGES)
