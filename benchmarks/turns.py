"""Durable turns with 0, 1, 3 and 9 external effects: one after the other, and 64 in flight.

A turn is from publishing to its answer heard: the durable insert, the handler, for each effect a verdict and two
commits, the turn's commit. An effect appends a line to a file. Beside it the peers, and what the store alone takes.
"""

import asyncio
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import beside, ceiling, loads
from benchmarks.given import POSTGRES, SQLITE, Given
from benchmarks.targets import at_least, at_most
from benchmarks.timing import EFFECTS, IN_FLIGHT, Latency, quantiles, rate, samples, table

SAMPLES, SECONDS = 150, 4.0
RATES = {SQLITE: 5000.0, POSTGRES: 2500.0}  # turns a second without effects
WHY_RATE = {
    SQLITE: "the gate is one Python process: a turn takes 0.27 ms of its loop and 0.2 ms of its writer, under one lock",
    POSTGRES: "gate, server, host and caller share two cores, and half of the time the writer waits for the server",
}
WHY_EFFECTS = "an effect takes 0.25 ms of the gate's loop and 0.15 ms of its writer, and a turn of nine takes its own"
WHY_EFFECT = (
    "a verdict, a task of the effector's, and two commits on the disk, each with its way to the writer and back"
)
WHY_CONTINUED = "the answer's commit on the disk lies between, then a read of the await and the way to the other's host"
WHY_PEER = "ours is three commits on the disk, one after the other (message, intent, receipt and end), and a verdict"
ABOUT = (
    "A gate with one plain host, without Ray; the far side of an effect appends a line to a file, over no connection."
    " Effects a second are those of turns with nine each; of turns with one, they are the turns a second above.\n\n"
)
EFFECT_MS, EFFECTS_RATE, CONTINUED_MS, TIMES_PEERS = 1.5, 2500.0, 1.0, 3.0


@dataclass
class Ours:
    """Figures of one database, by the effects of a turn."""

    serial: dict[int, Latency] = field(default_factory=dict)
    rate: dict[int, float] = field(default_factory=dict)
    ceiling: dict[int, float] = field(default_factory=dict)
    effect: Latency | None = None
    continued: Latency | None = None


def measure(given: Given) -> str:
    given.drop()
    count, seconds = given.several(SAMPLES), SECONDS / 4 if given.quick else SECONDS
    restate = beside.measured("restate", given, "turns", seconds, count)
    peers, rows, parts = [restate], [], []
    for kind in (SQLITE, POSTGRES):
        with given.database(kind) as url:
            ours = asyncio.run(_of(url, count, seconds))
        dbos = beside.measured(kind, given, "turns", seconds, count)
        peers.append(dbos)
        rows += [_row(kind, n, ours, dbos, restate) for n in EFFECTS]
        parts.append([kind, ours.effect, f"{ours.rate[9] * 9:.0f}", ours.continued])
        _aims(kind, ours, (dbos, restate))
    head = ["", "p50 / p99 ms", "DBOS", "ratio", "Restate", "ratio"]
    head += [f"turns/s, {IN_FLIGHT} in flight", "of the store's own", "DBOS", "Restate"]
    small = [
        "",
        "one effect: verdict, send, both commits, p50 / p99 ms",
        f"effects/s in turns of nine, {IN_FLIGHT} in flight",
    ]
    small += ["answer → asking turn goes on, p50 / p99 ms"]
    return f"{ABOUT}{table(head, rows)}\n{table(small, parts)}\n{beside.notes(peers)}"


def _row(kind: str, n: int, ours: Ours, dbos: beside.Found, restate: beside.Found) -> list[object]:
    serial, at_once = ours.serial[n], ours.rate[n]
    whole = f"{ours.ceiling[n]:.0f} ({at_once / ours.ceiling[n]:.0%})"
    cells = [*dbos.cells("serial", n, serial.p50_ms), *restate.cells("serial", n, serial.p50_ms)]
    named = f"{kind}: {n} effect{'' if n == 1 else 's'}"
    return [named, serial, *cells, f"{at_once:.0f}", whole, dbos.rate(n), restate.rate(n)]


def _aims(kind: str, ours: Ours, peers: tuple[beside.Found, ...]) -> None:
    at_least(f"turns/s, {kind}, {IN_FLIGHT} in flight", ours.rate[0], RATES[kind], WHY_RATE[kind])
    if kind == SQLITE and ours.effect and ours.continued:
        at_most(f"one external effect, {kind}: p50 ms", ours.effect.p50_ms, EFFECT_MS, WHY_EFFECT)
        at_least(
            f"effects/s in turns of nine, {kind}, {IN_FLIGHT} in flight", ours.rate[9] * 9, EFFECTS_RATE, WHY_EFFECTS
        )
        at_most(f"answer → asking turn goes on, {kind}: p50 ms", ours.continued.p50_ms, CONTINUED_MS, WHY_CONTINUED)
    for peer in peers:
        if (theirs := peer.latency("serial", 1)) is not None:
            name = f"a turn with one effect, {kind}: p50 of {peer.name} over ours"
            at_least(name, theirs.p50_ms / ours.serial[1].p50_ms, TIMES_PEERS, WHY_PEER)


async def _of(url: str, count: int, seconds: float) -> Ours:
    """All figures of one database."""
    found = Ours()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        notes = str(Path(folder) / "notes")
        async with loads.loaded(url) as load:
            await load.agent("one", "Noter")
            for n in range(IN_FLIGHT):
                await load.agent(f"a{n}", "Noter")
            for n in EFFECTS:
                asked = {"effects": n, "path": notes}
                took = await samples(lambda asked=asked: load.asked("one", asked), count)  # type: ignore[misc]
                found.serial[n] = quantiles(took)
                call = lambda at, asked=asked: load.asked(f"a{at}", asked)  # type: ignore[misc]  # noqa: E731
                found.rate[n] = await rate(call, IN_FLIGHT, seconds)
            found.effect = await _effect(load, notes, count)
            found.continued = await _continued(load, count)
    for n in EFFECTS:
        found.ceiling[n] = await ceiling.measured(url, n, seconds / 2)
    return found


async def _effect(load: loads.Loaded, notes: str, count: int) -> Latency:
    """As the turn sees it: from perform to its answer."""
    took: list[float] = []
    for _ in range(count):
        took += await load.answer(await load.asked("one", {"effects": 1, "path": notes}))
    return quantiles(took)


async def _continued(load: loads.Loaded, count: int) -> Latency:
    """From the line that answers, in one agent, to the line after the await, in the other: a commit is between."""
    await load.agent("asker", "Asker")
    await load.agent("asked")
    return quantiles([await load.answer(await load.asked("asker", "asked")) for _ in range(count)])
