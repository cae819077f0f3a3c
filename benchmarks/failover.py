"""What trouble costs: a host or a node killed or stopped under its agents, a gate killed, an agent that moves.

Hosts are plain processes of a gate without Ray; a second one waits, unspecialised, as a gate keeps one. All agents
are awake. From the moment of the trouble on one of them is asked, or all are, 64 at a time. The gate's death is that
of a whole installation's, whose supervisor has a spare that waits; each is killed when its own spare does. Nodes are
those of an installation, too.
"""

import asyncio
import contextlib
import itertools
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil

from benchmarks import loads, nodes, wakes
from benchmarks.given import POSTGRES, SQLITE, Given
from benchmarks.targets import at_most
from benchmarks.timing import IN_FLIGHT, Latency, quantiles, rate, table
from controlplane.effects.node import Bounds
from schemas.problem import Refusal
from tests.stack import Stack

AGENTS, ROUNDS, MOVES, GATES, LOAD_S, AT_ONCE, SENDERS = 1000, 3, 50, 3, 8.0, 32, 4
WHY_FIRST = "all 1,000 are released by one unit first, and the waiting host fetches and imports the agents' code"
WHY_ALL = "each is acquired and has a turn: two commits, at the rate of turns that the gate has"
WHY_GAP = "release and acquisition are a commit each, and the state is loaded, under the messages of four senders"
WHY_GATE = (
    "a spare that has imported its code begins some 50 ms after the death, and listens some 50 ms later; the rest is"
    " the turn, and the load of the machine"
)
ABOUT = (
    "Hosts are plain processes of a gate without Ray and plane; gates and nodes are a whole installation's, the nodes"
    " raylets of this machine.\n\n"
)
FIRST_MS, ALL_S, HUNG_S, GAP_MS, GATE_S = 50.0, 1.0, 3.0, 10.0, 0.5
GATE_S_MAX, SPARE_S_MAX, SPARE_CPU_S = 60.0, 60.0, 0.3
BURN = "while True: pass"
LOST = "SELECT COUNT(*) FROM event WHERE type = 'host.lost'"
Times = tuple[float, float]  # seconds to the first answer and to the last


def measure(given: Given) -> str:
    agents, rounds, moves = (100, 1, 5) if given.quick else (AGENTS, ROUNDS, MOVES)
    stack = given.stack()
    flowing = _gate_killed(stack, 1 if given.quick else GATES)
    given.drop()
    rows = nodes.measure(quick=given.quick)
    given.drop()
    for kind in (SQLITE, POSTGRES):
        with given.database(kind) as url:
            rows += asyncio.run(_of(kind, url, agents, rounds, moves))
            rows.append(asyncio.run(_false_alarms(kind, url, given.several(int(LOAD_S)))))
    at_most("gate killed → flowing again, s", flowing, GATE_S, WHY_GATE)
    rows.append(["SQLite: kill -9 of the gate → a turn answered (median)", f"{flowing:.2f} s"])
    return ABOUT + table(["", ""], rows)


async def _of(kind: str, url: str, agents: int, rounds: int, moves: int) -> list[list[object]]:
    """All rows of one database but for the load."""
    async with loads.loaded(url, lease_s=Bounds().lease_s) as load:
        names = [f"a{n}" for n in range(agents)]
        for start in range(0, agents, AT_ONCE):
            await asyncio.gather(*(load.agent(it, stays_ms=600_000) for it in names[start : start + AT_ONCE]))
        gap, usual = await _moved(load, names[0], moves)
        alone = []
        for n in range(rounds):
            alone.append((await _struck(load, names[n : n + 1], signal.SIGKILL))[0])
            for start in range(0, agents, AT_ONCE):  # each is awake again
                await asyncio.gather(*(load.asked(it) for it in names[start : start + AT_ONCE]))
        killed = [await _struck(load, names, signal.SIGKILL) for _ in range(rounds)]
        stopped = [await _struck(load, names, signal.SIGSTOP) for _ in range(rounds)]
    lone = statistics.median(alone)
    first, last = (statistics.median(it[at] for it in killed) for at in (0, 1))
    hung = [statistics.median(it[at] for it in stopped) for at in (0, 1)]
    at_most(f"host killed, {kind}: first turn, ms", lone * 1e3, FIRST_MS, WHY_FIRST)
    at_most(f"host killed, {kind}: all {agents:,}, s", last, ALL_S, WHY_ALL)
    at_most(f"host stopped, {kind}: first turn, s", hung[0], HUNG_S)
    at_most(f"migration gap, {kind}: p50 ms", gap.p50_ms, GAP_MS, WHY_GAP)
    struck = f"of a host with {agents:,} agents"
    return [
        [f"{kind}: kill -9 {struck} → a turn of one that is asked (median of {rounds})", f"{lone * 1e3:.0f} ms"],
        [f"{kind}: all are asked, 64 at a time: → first turn (median of {rounds})", f"{first * 1e3:.0f} ms"],
        [f"{kind}: → a turn of each of them", f"{last:.2f} s"],
        [f"{kind}: SIGSTOP {struck}, all are asked → first turn (median of {rounds})", f"{hung[0]:.2f} s"],
        [f"{kind}: → a turn of each of them", f"{hung[1]:.2f} s"],
        [f"{kind}: migration, last turn here → first turn there, n={gap.n}, p50 / p99", f"{gap} ms"],
        [f"{kind}: the same agent, from turn to turn meanwhile, p50 / p99", f"{usual} ms"],
    ]  # fmt: skip


async def _struck(load: loads.Loaded, names: list[str], number: int) -> Times:
    """A host is there, its successor waits; it is struck, and everybody is asked."""
    struck = load.gate.hosts[-1]
    load.gate.host()
    await load.hosts(2)
    begun = time.perf_counter()
    struck.send_signal(number)
    answered: list[float] = []
    places = asyncio.Semaphore(IN_FLIGHT)

    async def one(name: str) -> None:
        async with places:
            await load.asked(name)
        answered.append(time.perf_counter() - begun)

    await asyncio.gather(*(one(it) for it in names))
    struck.kill()
    await load.hosts(1)
    return answered[0], answered[-1]


async def _moved(load: loads.Loaded, name: str, moves: int) -> tuple[Latency, Latency]:
    """The agent is never without a message while it goes to and fro; then what its turns say of when and where."""
    other = load.gate.host()
    await load.hosts(2)
    over, asked = asyncio.Event(), []

    async def keep_asking() -> None:
        while not over.is_set():
            asked.append(await load.asked(name))

    senders = [asyncio.create_task(keep_asking()) for _ in range(SENDERS)]
    for _ in range(moves):
        moved = await load.gate.client.control("migrate", f"agent_{name}", {"principal": "bench", "warm": True})
        assert moved["moved"], moved
        await asyncio.sleep(0.05)  # some turns there
    over.set()
    await asyncio.gather(*senders)
    turns = sorted([await load.answer(it) for it in asked])
    steps = [(after[0] - before[0], after[1] != before[1]) for before, after in itertools.pairwise(turns)]
    other.kill()
    await load.hosts(1)
    load.gate.hosts.remove(other)
    return quantiles([it for it, moved in steps if moved]), quantiles([it for it, moved in steps if not moved])


@contextlib.contextmanager
def _burning() -> Iterator[None]:
    """Twice as many busy processes as there are cores."""
    busy = [subprocess.Popen([sys.executable, "-c", BURN]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


async def _false_alarms(kind: str, url: str, seconds: float) -> list[object]:
    """Hosts declared dead that live, while every core is taken twice and 64 turns are in flight."""
    async with loads.loaded(url, hosts=2, lease_s=Bounds().lease_s) as load:
        for n in range(IN_FLIGHT):
            await load.agent(f"b{n}")
        before = (await load.gate.rows(LOST))[0][0]
        with _burning():
            await rate(lambda at: load.asked(f"b{at}"), IN_FLIGHT, seconds)
        alarms = (await load.gate.rows(LOST))[0][0] - before
    at_most(f"false alarms under full load, {kind}", alarms, 0)
    return [f"{kind}: hosts declared dead in {seconds:.0f} s with every core taken twice", str(alarms)]


def _gate_killed(stack: Stack, times: int) -> float:
    """Seconds from kill -9 of the gate to the answer of a turn that was asked for after it."""
    stack.apply(wakes.CLOCK_AGENT)
    took = []
    for n in range(times):
        _until_spare(stack)
        took.append(asyncio.run(_flowing(stack, n)))
    return statistics.median(took)


def _until_spare(stack: Stack) -> None:
    """One has imported what it needs, and waits: it takes no time of a processor any more."""
    limit = time.monotonic() + SPARE_S_MAX
    before = -1.0
    while time.monotonic() < limit:
        pids = [it["pid"] for it in stack.call("system.status")["processes"]]  # the gate itself may have been one
        children = [it for it in psutil.Process(stack.pid).children() if it.pid not in pids]
        spent = [sum(it.cpu_times()[:2]) for it in children if it.cmdline()[-1:] == ["--spare"]]
        if spent and spent[0] == before > SPARE_CPU_S:
            return
        before = spent[0] if spent else -1.0
        time.sleep(1.0)
    raise RuntimeError(f"no spare of the gate was there within {SPARE_S_MAX:.0f} s")


async def _flowing(stack: Stack, n: int) -> float:
    async with wakes.gate_of(stack) as (client, _):
        await wakes.ask(client, "clock", f"before-{n}-{time.time_ns()}")
        found = await asyncio.to_thread(stack.call, "system.status")
        pid = next(it["pid"] for it in found["processes"] if it["name"] == "gate")
        begun = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        while True:
            try:
                await wakes.ask(client, "clock", f"after-{n}-{time.time_ns()}")
            except (
                Refusal
            ) as refusal:  # a call waits five seconds for a gate; on a loaded machine that may be too short
                if refusal.problem.reason != "NOT_READY" or time.perf_counter() - begun > GATE_S_MAX:
                    raise
            else:
                return time.perf_counter() - begun
