"""One installation with ever more suspended agents: what each thing asked of it costs.

A fleet of so many is proposed, committed, verified; then everything is asked while its agents are
suspended; then all are woken at once, one more is added, the installation is restarted, and the fleet
is taken away. What is measured from outside is in milliseconds; bytes are those in use by the store.
"""

import asyncio
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psutil
import psycopg

from benchmarks import wakes
from benchmarks.startup import ECHO, processes
from benchmarks.timing import quantiles
from tests.stack import Stack

PAGE, REPEATS, CHANGES, AT_ONCE, QUIET_S = 100, 9, 3, 256, 5.0
Figures = dict[str, float]


def fleet(replicas: int, name: str = "crowd") -> dict[str, Any]:
    """A fleet of agents that answer what they get, and are let go soon."""
    spec = {"code": {"files": {"echo.py": ECHO}}, "entrypoint": "echo:Echo", "suspend_after_ms": 200}
    template = {"labels": {"part": "crowd"}, "spec": spec}
    return {"kind": "Fleet", "metadata": {"name": name}, "spec": {"replicas": replicas, "template": template}}


def single(name: str) -> dict[str, Any]:
    """The same agent, of its own."""
    template = fleet(1)["spec"]["template"]
    return {"kind": "Agent", "metadata": {"name": name, "labels": template["labels"]}, "spec": template["spec"]}


class Asked:
    """A client of a stack that measures."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._client = stack.rest()

    def answer(self, operation: str, **arguments: Any) -> httpx.Response:
        found = self._client.post(f"/v1/operations/{operation}/call", json=arguments)
        assert found.status_code == 200, f"{operation}: {found.text}"
        return found

    def ms(self, operation: str, **arguments: Any) -> float:
        """The median of some calls, one after the other."""
        samples = []
        for _ in range(REPEATS):
            begun = time.perf_counter()
            self.answer(operation, **arguments)
            samples.append(time.perf_counter() - begun)
        return quantiles(samples).p50_ms

    def applied(self, manifest: dict[str, Any], figures: Figures, what: str) -> None:
        """Propose, commit, wait for the verdicts; each into the figures.

        Proposing is the median of some manifests that differ in a label, of which the last is committed.
        """
        samples = []
        for number in range(REPEATS):
            labelled = manifest | {"metadata": manifest["metadata"] | {"labels": {"try": str(number)}}}
            begun = time.perf_counter()
            plan = self.answer("resources.propose", manifests=[labelled])
            samples.append(time.perf_counter() - begun)
        proposed = time.perf_counter()
        committed = self.answer("plans.commit", plan_id=plan.json()["plan_id"]).json()
        figures |= {
            f"{what}: propose": statistics.median(samples) * 1e3,
            f"{what}: commit": (time.perf_counter() - proposed) * 1e3,
            f"{what}: bytes of the plan": len(plan.content),
        }
        while True:
            change = self.answer("changes.wait", change_id=committed["change_id"], timeout_s=60).json()
            if change["done"]:
                break
        assert change["outcome"] == "verified", change
        figures[f"{what}: verified"] = (time.perf_counter() - proposed) * 1e3

    def several(self, n: int, figures: Figures) -> None:
        """One agent more, and another: what a change of that size takes, its verdict included."""
        rounds = [Figures() for _ in range(CHANGES)]
        for number, each in enumerate(rounds, 1):
            self.applied(fleet(n + number), each, "one more")
        figures |= {key: statistics.median(it[key] for it in rounds) for key in rounds[0]}

    def close(self) -> None:
        self._client.close()


def measure(stack: Stack, n: int, say: Callable[[str], None]) -> Figures:
    """All figures at `n` agents; the stack is as empty afterwards as it was before."""
    asked, figures = Asked(stack), Figures()
    before = store_bytes(stack)
    say(f"{n} agents: creating")
    asked.applied(fleet(n), figures, "create")
    until_suspended(stack)
    figures["bytes"] = (store_bytes(stack) - before) / n
    say(f"{n} agents: reading")
    _read(asked, n, figures)
    woken, answered = asyncio.run(wakes.wakes(stack, 200, f"wake-{n}-{time.time_ns()}"))
    figures |= {"wake p50": woken.p50_ms, "wake p99": woken.p99_ms, "answer p50": answered.p50_ms}
    figures |= quiet(stack)
    say(f"{n} agents: waking all at once")
    figures["all at once"] = statistics.median(_rounds_of_all(stack, n)) * 1e3
    figures |= {f"memory {name}": held for name, held in memory(stack).items()}
    asked.several(n, figures)
    asked.close()
    say(f"{n} agents: restarting")
    stack.stop()
    begun = time.perf_counter()
    stack.up()
    figures["restart"] = (time.perf_counter() - begun) * 1e3
    stack.call("agents.ask", name="clock", timeout_s=60)  # hosts are there again
    say(f"{n} agents: taking them away")
    asked = Asked(stack)
    asked.applied(fleet(0), figures, "to none")
    asked.close()
    return figures


def _read(asked: Asked, n: int, figures: Figures) -> None:
    listed = {"limit": PAGE, "namespace": "default"}
    marks, page = [], asked.answer("agents.list", **listed).json()
    while page["next_page"]:
        marks.append(page["next_page"])
        page = asked.answer("agents.list", page=marks[-1], **listed).json()
    middle = {"page": marks[len(marks) // 2]} if marks else {}
    last = {"page": marks[-1]} if marks else {}
    one = {"name": f"crowd-{n // 2}"}
    figures |= {
        "first page": asked.ms("agents.list", **listed),
        "page in the middle": asked.ms("agents.list", **listed, **middle),
        "last page": asked.ms("agents.list", **listed, **last),
        "page by label": asked.ms("agents.list", **listed, labels={"part": "crowd"}),
        "label that nobody has": asked.ms("agents.list", **listed, labels={"part": "nobody"}),
        "agents.get": asked.ms("agents.get", **one),
        "turns.list": asked.ms("turns.list", **one),
        "fleets.get": asked.ms("fleets.get", name="crowd"),
        "system.status": asked.ms("system.status"),
        "feedback.read": asked.ms("feedback.read", limit=PAGE),
    }


def _rounds_of_all(stack: Stack, n: int) -> Iterator[float]:
    for _ in range(CHANGES):
        yield asyncio.run(_all_at_once(stack, n))
        until_suspended(stack)


async def _all_at_once(stack: Stack, n: int) -> float:
    """Every agent is asked at once; seconds until the last answer."""
    places = asyncio.Semaphore(AT_ONCE)
    mark = time.time_ns()

    async def one(client: Any, number: int) -> None:
        async with places:
            await wakes.ask(client, f"crowd-{number}", f"all-{mark}-{number}", 120)

    async with wakes.gate_of(stack) as (client, _):
        begun = time.perf_counter()
        await asyncio.gather(*(one(client, number) for number in range(n)))
        return time.perf_counter() - begun


def until_suspended(stack: Stack, timeout_s: float = 60) -> None:
    """Wait until no agent is awake."""
    limit = time.monotonic() + timeout_s
    while stack.call("system.status")["agents"]["awake"]:
        assert time.monotonic() < limit, "agents stay awake"
        time.sleep(0.1)


def store_bytes(stack: Stack) -> int:
    """Bytes in use: of SQLite the pages that are not free, of PostgreSQL its tables with their indexes."""
    if stack.database_url:
        with psycopg.connect(stack.database_url) as connection:
            sizes = "SELECT SUM(pg_total_relation_size(relid)) FROM pg_stat_user_tables"
            found = connection.execute(sizes).fetchone()  # type: ignore[arg-type]
            return int(found[0]) if found else 0
    connection_ = sqlite3.connect(f"file:{stack.data / 'steward.db'}?mode=ro", uri=True)
    try:
        values = [connection_.execute(f"PRAGMA {it}").fetchone()[0] for it in ("page_count", "freelist_count")]
        return int((values[0] - values[1]) * connection_.execute("PRAGMA page_size").fetchone()[0])
    finally:
        connection_.close()


def tables(stack: Stack) -> dict[str, int]:
    """Bytes in use of each table with its indexes, where SQLite tells."""
    connection = sqlite3.connect(f"file:{stack.data / 'steward.db'}?mode=ro", uri=True)
    query = "SELECT m.tbl_name, SUM(d.pgsize) FROM dbstat d JOIN sqlite_schema m ON m.name = d.name GROUP BY m.tbl_name"
    try:
        return dict(connection.execute(query))
    except sqlite3.OperationalError:  # built without
        return {}
    finally:
        connection.close()


def memory(stack: Stack) -> dict[str, float]:
    """Megabytes that are a process' alone, by what it is."""
    held: dict[str, float] = {}
    for name, process in processes(stack):
        try:
            held[name] = held.get(name, 0.0) + process.memory_full_info().uss / 1e6
        except psutil.Error:
            continue
    return held


def quiet(stack: Stack) -> Figures:
    """The share of a core that plane and gate take while nothing happens, in percent."""
    watched = {name: process for name, process in processes(stack) if name in ("plane", "gate")}
    before = {name: sum(process.cpu_times()[:2]) for name, process in watched.items()}
    time.sleep(QUIET_S)
    return {f"quiet {it}": (sum(watched[it].cpu_times()[:2]) - before[it]) / QUIET_S * 100 for it in watched}
