"""A crowd of suspended agents of which one in a hundred is active: what they cost, and that nobody else wakes.

One installation on SQLite, by the number of agents; the largest takes some minutes.
"""

import asyncio
import itertools
import time
from typing import Any

from benchmarks import growth, wakes
from benchmarks.given import Given
from benchmarks.growth import AT_ONCE, Asked, Figures, fleet
from benchmarks.startup import processes
from benchmarks.targets import at_most
from benchmarks.timing import quantiles, table
from controlplane.store.store import Store
from tests.stack import Stack

SIZES, MOST, ACTIVE, ACTIVE_S, QUIET_S, FLEET = (1_000, 10_000), 100_000, 100, 5.0, 5.0, 10_000
STORE_BYTES, GATE_BYTES = 2048, 2048
STANDS = "… in what stands for it: agent, resource, label"
STANDING, KEPT = ("agent", "resource", "label"), ("turn", "event", "usage", "usage_common")
ABOUT = (
    "Of the bytes in the store, those of what stands for an agent are there for as long as it is, and are judged; the"
    " rest is the record of its first turn (the turn, two events, its use), which retention ends.\n\n"
    "The bytes in the gate's memory are what it holds more than with no agent, by the number of agents; the target is"
    " judged by what it holds more than with the fewest, since its pages of the database's file are in both.\n\n"
)
WHY_GATE = (
    "it keeps no object for one: these are pages of SQLite's file, 16 MB at most, of which a larger file fills more"
)
AWAKE = "SELECT COUNT(*) FROM agent WHERE owner IS NOT NULL"
WRONGLY = "SELECT COUNT(*) FROM turn WHERE started_at > {since} AND agent NOT IN (SELECT uid FROM agent WHERE {active})"


def measure(given: Given) -> str:
    given.drop()
    most = given.agents(MOST)
    sizes = sorted({*(it for it in SIZES if it < most), most})
    with Stack(ray_dashboard=True) as stack:
        stack.apply(wakes.CLOCK_AGENT, fleet(1, "warm"))
        growth.until_suspended(stack)
        empty = {"store": float(growth.store_bytes(stack)), **growth.memory(stack), **growth.tables(stack)}
        found = {}
        made = 0
        for n in sizes:
            _grow(stack, made, n)
            made = n
            found[n] = _measured(stack, n, empty)
    return _tables(found)


def _grow(stack: Stack, made: int, n: int) -> None:
    """More fleets, each as large as one may be."""
    asked = Asked(stack)
    for start in range(made, n, FLEET):
        asked.applied(fleet(min(FLEET, n - start), f"crowd-{start}"), Figures(), "create")
    asked.close()
    growth.until_suspended(stack, 300)


def _measured(stack: Stack, n: int, empty: dict[str, float]) -> Figures:
    figures = Figures()
    figures["bytes an agent in the store"] = (growth.store_bytes(stack) - empty["store"]) / n
    by_table = {it: (held - empty.get(it, 0)) / n for it, held in growth.tables(stack).items()}
    figures[STANDS] = sum(by_table.get(it, 0) for it in STANDING)
    figures["… in what history keeps for a while: turn, event, usage"] = sum(by_table.get(it, 0) for it in KEPT)
    held = growth.memory(stack)
    figures |= {f"{it}: MB": held[it] for it in sorted(held)}
    figures["bytes an agent in the gate's memory"] = (held["gate"] - empty["gate"]) * 1e6 / n
    figures |= {f"{it}: CPU % while all are suspended": share for it, share in _idle(stack).items()}
    figures |= asyncio.run(_active(stack, max(n // ACTIVE, 1)))
    return figures


def _idle(stack: Stack) -> dict[str, float]:
    """The share of a core that each kind of process takes, in percent."""
    watched = processes(stack)
    before = [sum(it.cpu_times()[:2]) for _, it in watched]
    time.sleep(QUIET_S)
    shares: dict[str, float] = {}
    for (name, process), began in zip(watched, before, strict=True):
        shares[name] = shares.get(name, 0.0) + (sum(process.cpu_times()[:2]) - began) / QUIET_S * 100
    return shares


async def _active(stack: Stack, active: int) -> Figures:
    """So many are asked again and again; the others have had no turn, and in the end nobody is awake."""
    since, count, took = time.time(), itertools.count(), []
    until = time.perf_counter() + ACTIVE_S
    places = asyncio.Semaphore(AT_ONCE)

    async def keep_asking(client: Any, number: int) -> None:
        while time.perf_counter() < until:
            async with places:
                begun = time.perf_counter()
                await wakes.ask(client, f"crowd-0-{number}", f"active-{since}-{next(count)}", 120)
                took.append(time.perf_counter() - begun)
            await asyncio.sleep(0.5)  # it is suspended in between

    async with wakes.gate_of(stack) as (client, store):
        await asyncio.gather(*(keep_asking(client, number) for number in range(active)))
        named = ", ".join(f"'crowd-0-{number}'" for number in range(active))
        wrongly = await _count(store, WRONGLY.format(since=since, active=f"name IN ({named})"))
    growth.until_suspended(stack)
    async with wakes.gate_of(stack) as (_, store):
        awake = await _count(store, AWAKE)
    at_most(f"wrongly awake, {active} active", wrongly + awake, 0)
    answered = quantiles(took)
    return {
        "active": active,
        "asks a second of the active": len(took) / ACTIVE_S,
        "active: published → answer read, p50 ms": answered.p50_ms,
        "active: published → answer read, p99 ms": answered.p99_ms,
        "wrongly awake": wrongly + awake,
    }


async def _count(store: Store, sql: str) -> int:
    found = await store.read(lambda session: session.connection().exec_driver_sql(sql).scalar())
    return int(found or 0)


def _tables(found: dict[int, Figures]) -> str:
    largest, least = max(found), min(found)
    last = found[largest]
    at_most(f"{largest:,} suspended: bytes in the store that stand for an agent", last[STANDS], STORE_BYTES)
    held = last["bytes an agent in the gate's memory"]
    if least < largest:  # what it holds of none of them, its pages of the database's file above all, is in both
        held = (last["gate: MB"] - found[least]["gate: MB"]) * 1e6 / (largest - least)
    at_most(f"{largest:,} suspended: bytes an agent in the gate", held, GATE_BYTES, WHY_GATE)
    keys = list(dict.fromkeys(key for each in found.values() for key in each))
    rows = [[key, *(f"{each.get(key, 0):,.1f}" for each in found.values())] for key in keys]
    return ABOUT + table(["suspended agents, 1 % active in turns", *(f"{n:,}" for n in found)], rows)
