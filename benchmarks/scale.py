"""How each figure grows from 10 agents to 10,000, and a picture of it.

One installation on SQLite goes through all sizes, one on PostgreSQL up to a tenth of them. Then the
same thousand agents come and go five times, which shows what is kept of agents that are gone.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import growth, wakes
from benchmarks.given import Given
from benchmarks.growth import Figures, fleet
from benchmarks.picture import draw
from benchmarks.targets import at_most
from benchmarks.timing import table
from tests.stack import Stack

SIZES = (10, 100, 1_000, 10_000)
ROUNDS, EACH = 5, 1_000
BYTES_MAX = 4096
ALONE = ((1_000, 100), (300, 1))  # agents of their own, and how many of them in a plan
PICTURE = Path(__file__).resolve().parent.parent / "docs" / "scale.svg"
INTRO = f"""A fleet of ever more agents, which are suspended but where it says that they are woken. Medians of
{growth.REPEATS} calls over REST, in milliseconds, with everything that the call does; pages hold {growth.PAGE}.
Of {growth.CHANGES} rounds where all are woken or one is added; creating, restarting and taking away are done once.
The line of slope 1 in the picture is what grows as its count does. Bytes are those in use by the store, with
indexes, and with the turn and the events of the start. USS counts the pages of SQLite's file that a process
keeps: 16 MB at most in the gate, and in the plane the file as it is mapped.

![Growth](scale.svg)

"""
OPERATING = (
    ("propose the fleet", "create: propose"),
    ("commit it", "create: commit"),
    ("commit one agent more", "one more: commit"),
    ("committed → every agent has started, change verified", "create: verified"),
    ("one agent more: committed → verified", "one more: verified"),
    ("to none: committed → verified", "to none: verified"),
    ("all woken at once: asked → all answered", "all at once"),
    ("the installation restarted: `up` → ready", "restart"),
)
READING = (
    "first page",
    "page in the middle",
    "last page",
    "page by label",
    "label that nobody has",
    "agents.get",
    "turns.list",
    "fleets.get",
    "system.status",
    "feedback.read",
)
WAKING = (
    ("published → handler started, p50", "wake p50"),
    ("published → handler started, p99", "wake p99"),
    ("published → answer read, p50", "answer p50"),
)
Series = dict[int, Figures]


def say(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)


def measure(given: Given) -> str:
    """The whole section; draws the picture, too."""
    largest = given.agents(SIZES[-1])
    given.drop()
    sizes = [it for it in SIZES if it <= largest] or [largest]
    with Stack(ray_dashboard=True) as stack:
        stack.apply(wakes.CLOCK_AGENT, fleet(1, "warm"))
        growth.until_suspended(stack)
        before = growth.memory(stack)
        series = {n: growth.measure(stack, n, say) for n in sizes}
        rows = _by_table(stack, sizes[-1])
        kept = _rounds(stack, min(EACH, largest))
    if not given.quick:
        draw(series, PICTURE)
    text = INTRO + _figures(series) + "\n" + _held(series, before) + "\n" + rows + "\n" + kept
    return text + "\nThe same on PostgreSQL:\n\n" + _on_postgres(given, [it for it in sizes if it * 10 <= largest])


def _figures(series: Series, database: str = "SQLite") -> str:
    rows: list[list[object]] = []
    rows += [[label, *_cells(series, key)] for label, key in OPERATING]
    rows += [[f"`{it}`" if "." in it else it, *_cells(series, it)] for it in READING]
    rows += [[label, *_cells(series, key)] for label, key in WAKING]
    rows += [["bytes of the plan", *(f"{it['create: bytes of the plan']:.0f}" for it in series.values())]]
    sizes = [it["bytes"] for it in series.values()]
    target = at_most(f"bytes in the store, an agent of a fleet, {database}", sizes[-1], BYTES_MAX)
    rows += [[f"bytes in the store, an agent (target {target.cell})", *(f"{it:.0f}" for it in sizes)]]
    return table(["milliseconds at … agents", *(f"{n:,}" for n in series)], rows)


def _cells(series: Series, key: str) -> list[str]:
    return [f"{it[key]:.2f}" if it[key] < 100 else f"{it[key]:.0f}" for it in series.values()]


def _held(series: Series, before: dict[str, float]) -> str:
    """Memory of the processes with all agents suspended again, and what quiet costs."""
    names = sorted(before)
    rows: list[list[object]] = [["before", *(f"{before[it]:.0f}" for it in names), ""]]
    for n, figures in series.items():
        held = [f"{figures.get(f'memory {it}', 0):.0f}" for it in names]
        rows.append([f"{n:,}", *held, f"{figures['quiet plane']:.1f} / {figures['quiet gate']:.1f}"])
    return table(
        ["agents suspended, all woken once", *(f"{it} USS MB" for it in names), "quiet: plane / gate CPU %"], rows
    )


def _by_table(stack: Stack, n: int) -> str:
    """What an agent costs in each table, with its indexes."""
    say(f"{n} agents: bytes by table")
    before = growth.tables(stack)
    stack.apply(fleet(n, "counted"), timeout_s=120)
    growth.until_suspended(stack)
    each = {it: (held - before.get(it, 0)) / n for it, held in growth.tables(stack).items()}
    stack.apply(fleet(0, "counted"), timeout_s=120)
    columns = {f"a fleet of {n:,}": each}
    for many, at_once in ALONE:
        say(f"{many} agents of their own, {at_once} in a plan")
        columns[f"{many:,} agents of their own, {at_once} in a plan"] = _of_their_own(stack, many, at_once)
    return _columns(columns)


def _of_their_own(stack: Stack, many: int, at_once: int) -> dict[str, float]:
    """What an agent outside of fleets costs, with the whole record of the change that made it."""
    before = growth.tables(stack)
    named = [f"own-{at_once}-{number}" for number in range(many)]
    for start in range(0, many, at_once):
        stack.apply(*(growth.single(it) for it in named[start : start + at_once]), timeout_s=120)
    growth.until_suspended(stack)
    return {it: (held - before.get(it, 0)) / many for it, held in growth.tables(stack).items()}


def _columns(columns: dict[str, dict[str, float]]) -> str:
    """Bytes by table, a column for each way in which agents came to be."""
    for name, each in columns.items():
        at_most(f"bytes in the store, an agent: {name}", sum(each.values()), BYTES_MAX)
    names = sorted({it for each in columns.values() for it, held in each.items() if held >= 1})
    rows: list[list[object]] = [[f"`{it}`", *(f"{each.get(it, 0):.0f}" for each in columns.values())] for it in names]
    rows.append([f"all (target ≤ {BYTES_MAX})", *(f"{sum(each.values()):.0f}" for each in columns.values())])
    return table(["bytes an agent, by table with its indexes", *columns], rows)


def _rounds(stack: Stack, each: int) -> str:
    """The same agents come and go; what the processes hold after each round."""
    rows: list[list[object]] = []
    for number in range(ROUNDS + 1):
        if number:
            say(f"round {number} of {ROUNDS}: {each} agents come and go")
            stack.apply(fleet(each, "round"), timeout_s=120)
            growth.until_suspended(stack)
            stack.apply(fleet(0, "round"), timeout_s=120)
        held = growth.memory(stack)
        rows.append([number or "before", f"{held['plane']:.1f}", f"{held['gate']:.1f}"])
    return table([f"{each:,} agents come and go, round", "plane USS MB", "gate USS MB"], rows)


def _on_postgres(given: Given, sizes: Sequence[int]) -> str:
    with given.postgres() as url, Stack(url, ray_dashboard=True) as stack:
        stack.apply(wakes.CLOCK_AGENT, fleet(1, "warm"))
        series = {n: growth.measure(stack, n, lambda line: say(f"PostgreSQL, {line}")) for n in sizes}
        return _figures(series, "PostgreSQL")
