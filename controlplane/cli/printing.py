"""Blocks, values and Problems on a terminal, as plain lines, as JSON or as YAML.

What comes from agents and the outside is printed as data: control characters are made visible,
so that no text can move the cursor, and no text is taken for markup. A terminal gets tables and
colours; where there is none, the same as plain lines. A Problem goes to standard error, but as
JSON or YAML it is the answer, and stands where answers stand.
"""

import json
import re
import sys
from typing import IO, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from controlplane.cli.session import Output
from controlplane.cli.shapes import Block, Document, Grid, Line, blocks
from controlplane.cli.yaml_form import dump
from schemas.problem import Problem

STYLES = {"plain": "", "good": "green", "bad": "red", "warn": "yellow", "dim": "dim", "strong": "bold"}
WIDTH = 160
_CONTROL = re.compile(  # what moves the cursor, turns the direction, or can not be seen
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def show(value: Any, output: Output | None) -> None:
    """Print an answer."""
    if output == "json":
        write_json(value)
    elif output == "yaml":
        print(clean(dump(value)), end="")
    else:
        put(blocks(value), _console(sys.stdout, output))


def refuse(problem: Problem, output: Output | None) -> None:
    """Print a Problem."""
    value = problem.model_dump(mode="json")
    if output in ("json", "yaml"):
        show(value, output)
        return
    lines = _problem_lines(problem)
    console = _console(sys.stderr, output)
    if console is None:
        print("\n".join(clean(line) for line in [f"{problem.title} ({problem.reason})", *lines]), file=sys.stderr)
        return
    title = Text(f"{problem.title} ({problem.reason})")
    console.print(Panel(Text(clean("\n".join(lines))), title=title, title_align="left", border_style="red"))


def say(text: str, tone: str = "plain") -> None:
    """A line beside the answer, on standard error."""
    console = _console(sys.stderr, None)
    if console is None:
        print(clean(text), file=sys.stderr, flush=True)
    else:
        console.print(Text(clean(text), style=STYLES[tone]))


def before(found: list[Block], output: Output | None) -> None:
    """Blocks that a person shall see before the answer; nothing where JSON or YAML was asked for."""
    if output not in ("json", "yaml"):
        put(found, _console(sys.stdout, output))


def put(found: list[Block], console: Console | None) -> None:
    """Print blocks; without a console, as plain lines."""
    for block in found:
        if console is None:
            print("\n".join(plain(block)))
        else:
            _put_rich(block, console)


def plain(block: Block) -> list[str]:
    """A block as plain lines."""
    if isinstance(block, Line):
        return [clean(block.text)]
    if isinstance(block, Document):
        lines = clean(dump(block.value)).rstrip("\n").splitlines()
        return [f"{block.title}:", *(f"  {line}" for line in lines)] if block.title else lines
    rows = [block.columns, *(tuple(_one_line(cell.text) for cell in row) for row in block.rows)]
    widths = [max(len(row[index]) for row in rows) for index in range(len(block.columns))]
    title = [f"{block.title}:"] if block.title else []
    return title + [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def write_json(value: Any) -> None:
    """The value as JSON, readable, in the order it came."""
    print(clean(json.dumps(value, ensure_ascii=False, indent=2)))


def clean(text: str) -> str:
    """The text with control characters made visible; what JSON escapes stays as it is."""
    return _CONTROL.sub(lambda found: _escaped(ord(found[0])), text)


def _escaped(code: int) -> str:
    """As JSON escapes it: in halves, where one escape can not hold it."""
    if code < 0x10000:
        return f"\\u{code:04x}"
    return f"\\u{0xD800 + (code - 0x10000 >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


def table(grid: Grid) -> Table:
    """A grid as rich draws it."""
    drawn = Table(box=SIMPLE_HEAD, title=grid.title or None, title_justify="left", pad_edge=False)
    for column in grid.columns:
        drawn.add_column(column, overflow="fold")
    for row in grid.rows:
        drawn.add_row(*(Text(clean(cell.text), style=STYLES[cell.tone]) for cell in row))
    return drawn


def _put_rich(block: Block, console: Console) -> None:
    if isinstance(block, Grid):
        console.print(table(block))
    elif isinstance(block, Line):
        console.print(Text(clean(block.text), style=STYLES[block.tone]))
    else:
        if block.title:
            console.print(Text(block.title, style="bold"))
        console.print(Text(clean(dump(block.value)).rstrip("\n")))


def _problem_lines(problem: Problem) -> list[str]:
    from controlplane.cli.spelling import spell  # the catalogue is needed for nothing else here

    lines = [problem.detail]
    lines += [f"at {problem.field}"] if problem.field else []
    lines += [f"try again after {problem.retry_after_s:g} s"] if problem.retry_after_s is not None else []
    for step in problem.next:
        lines += ["", f"{step.why}:", f"  {spell(step.operation, step.arguments)}"]
    return lines


def _console(stream: IO[str], output: Output | None) -> Console | None:
    """A console where there is a terminal, or where a table was asked for."""
    if stream.isatty():
        return Console(file=stream, highlight=False)
    return Console(file=stream, highlight=False, width=WIDTH) if output == "table" else None


def _one_line(text: str) -> str:
    return clean(text).replace("\n", "\\n").replace("\t", "\\t")
