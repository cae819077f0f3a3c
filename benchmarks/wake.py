"""Wake by message: from publishing, the sender's durable insert included, to the first line of the handler.

A gate with one plain host, without Ray, on each database: agents that are rows and nothing else, by the size of
their state, with their code warm on the host or cold; then one that is awake. Beside it the nearest like of peers.
"""

import asyncio
import math
from collections.abc import Sequence
from typing import Any

from benchmarks import beside, loads, wakes
from benchmarks.given import POSTGRES, SQLITE, Given
from benchmarks.targets import at_most
from benchmarks.timing import STATES, quantiles, table

SAMPLES, COLD, COLD_LARGE = 300, 20, 5
SMALL = next(iter(STATES))
AIMS = {SQLITE: (1.0, 3.0), POSTGRES: (3.0, math.inf)}  # milliseconds at p50 and p99
WHY = "insert and acquisition share one commit; the rest is the Python around it, two reads, and the way to the host"
ABOUT = (
    "The second table is a gate with one plain host, without Ray and plane, that takes states of 20 MiB (1 MiB is the"
    " default). Code is cold on a host that has never seen it.\n\n"
)
Samples = tuple[list[float], list[float]]


def measure(given: Given) -> str:
    """Beside a Ray actor's creation on the same machine first, then the gate by itself."""
    text = wakes.measure(given.stack())
    given.drop()  # its processes take their share even while nothing happens
    count = given.several(SAMPLES)
    restate = beside.measured("restate", given, "wake", 0.0, count)
    peers = [restate]
    rows: list[list[object]] = []
    for kind in (SQLITE, POSTGRES):
        with given.database(kind) as url:
            ours = asyncio.run(_of(url, count, given.several(COLD)))
        dbos = beside.measured(kind, given, "wake", 0.0, count)
        peers.append(dbos)
        rows += [_row(kind, key, found, [dbos, restate]) for key, found in ours.items()]
        _aim(kind, quantiles(ours[f"suspended, {SMALL}"][0]))
    head = ["", "→ handler started, p50 / p99 ms", "→ answer heard", "DBOS → first line", "ratio", "Restate", "ratio"]
    return f"{text}\n{ABOUT}{table(head, rows)}\n{beside.notes(peers)}"


def _aim(kind: str, woken: Any) -> None:
    p50_ms, p99_ms = AIMS[kind]
    at_most(f"wake, {kind}, {SMALL}, code warm: p50 ms", woken.p50_ms, p50_ms, WHY)
    if p99_ms < math.inf:
        at_most(f"wake, {kind}, {SMALL}, code warm: p99 ms", woken.p99_ms, p99_ms, WHY)


def _row(kind: str, key: str, ours: Samples, peers: Sequence[beside.Found]) -> list[object]:
    woken, heard = (quantiles(it) for it in ours)
    cells: list[object] = []
    for peer in peers:
        like = key.removeprefix("suspended, ")
        cells += peer.cells("wake", like, woken.p50_ms) if like in STATES else ["", ""]
    return [f"{kind}: {key} (n={woken.n})", woken, heard, *cells]


async def _of(url: str, count: int, cold: int) -> dict[str, Samples]:
    """All rows of one database."""
    found: dict[str, Samples] = {}
    async with loads.loaded(url) as load:
        for number, (name, size) in enumerate(STATES.items()):
            await load.agent(f"asleep-{number}", stays_ms=0)
            await load.asked(f"asleep-{number}", size)
            many = count if size < loads.LARGE_BYTES else min(count, loads.LARGE_SAMPLES)
            found[f"suspended, {name}"] = await _wakes(load, f"asleep-{number}", many, asleep=True)
        await load.agent("awake")
        await load.asked("awake", STATES[SMALL])
        found[f"awake, {SMALL}"] = await _wakes(load, "awake", count, asleep=False)
        for number, (name, size) in enumerate(STATES.items()):
            many = cold if size < loads.LARGE_BYTES else min(cold, COLD_LARGE)
            found[f"suspended, {name}, code cold"] = await _cold(load, f"asleep-{number}", many)
    return found


async def _wakes(load: loads.Loaded, name: str, count: int, *, asleep: bool) -> Samples:
    started, heard = [], []
    for n in range(count + 3):
        if asleep:
            await load.asleep(name)
        woken, answered = await load.clocked(name)
        if n >= 3:
            started.append(woken)
            heard.append(answered)
    return started, heard


async def _cold(load: loads.Loaded, name: str, count: int) -> Samples:
    """Each time on a host that runs, and has never seen the code."""
    started, heard = [], []
    for _ in range(count):
        await load.asleep(name)
        load.gate.hosts[-1].terminate()
        await load.hosts(0)
        load.gate.host()
        await load.hosts(1)
        woken, answered = await load.clocked(name)
        started.append(woken)
        heard.append(answered)
    return started, heard
