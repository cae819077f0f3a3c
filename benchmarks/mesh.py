"""The mesh: publishing to handling, request and reply between agents, fan-out, many channels.

A gate with one plain host, without Ray, on each database. Handlers tell by datagram that they have begun, so that
nothing of the turn after that is inside a figure. Beside it NATS JetStream, messages of DBOS on the same database, and
for request and reply NATS and a call between two Ray actors.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks import beside, churn, loads
from benchmarks.ears import Ears
from benchmarks.given import POSTGRES, SQLITE, Given
from benchmarks.ray_calls import calls_of
from benchmarks.targets import at_most
from benchmarks.timing import AT_ONCE, IN_FLIGHT, Latency, quantiles, table

SAMPLES, SECONDS, ASKS = 300, 3.0, 40
MEMBERS, CHANNELS, DELIVERED, READERS = (1, 10, 100, 1_000), (10, 100, 1_000, 10_000), 2_000, 10
FLAT, SEVERAL = 2.0, 10  # a publication with one member is a commit of its own for one delivery
ABOUT = (
    "A gate with one plain host, without Ray. JetStream keeps its stream on disk and syncs its files as the server does"
    " by default, every two minutes; ours and DBOS sync each commit, or each group of commits. Request and reply of"
    " NATS keeps nothing. 50 at once are 50 pairs of agents with us, and 50 calls in flight between one pair with NATS"
    " and Ray. DBOS has no rate on SQLite: it looks for messages once a second there.\n\n"
)
WHY_CHANNELS = (
    "on SQLite a message of another channel writes pages of its own, of the channel and of its member:"
    " 43 KiB of log a message with 10,000 channels, 27 with 100, and twice the CPU of the commit"
)
WHY_CALL = (
    "both directions are durable, and pass the gate, one Python process: a commit on the disk lies between the question"
    " and the line behind it, and so do four ways from process to process"
)


@dataclass
class Ours:
    """Figures of one database."""

    publish: Latency | None = None
    rate: float = 0.0
    churn: float = 0.0
    replies: dict[int, Latency] = field(default_factory=dict)
    by_members: dict[int, float] = field(default_factory=dict)  # milliseconds for each message delivered
    by_channels: dict[int, float] = field(default_factory=dict)


def measure(given: Given) -> str:
    ray = calls_of(given.stack(), given.several(SAMPLES))
    given.drop()  # its processes take their share even while nothing happens
    seconds, count = SECONDS / 3 if given.quick else SECONDS, given.several(SAMPLES)
    nats = beside.measured("nats", given, "mesh", seconds, count)
    peers, published, replied, grown = [nats], [], [], []
    for kind in (SQLITE, POSTGRES):
        with given.database(kind) as url:
            ours = asyncio.run(_of(url, kind, count, seconds, quick=given.quick))
        dbos = beside.measured(kind, given, "mesh", seconds, count)
        peers.append(dbos)
        assert ours.publish is not None
        cells = [*nats.cells("publish", 1, ours.publish.p50_ms), *dbos.cells("publish", 1, ours.publish.p50_ms)]
        published.append([kind, ours.publish, *cells, f"{ours.rate:.0f}", nats.rate("publish"), dbos.rate("publish")])
        published[-1].append(f"{ours.churn:.0f}")
        replied += [_replies(kind, n, ours, nats, ray) for n in AT_ONCE]
        grown += _grown(kind, ours)
    head = ["", "published → handler, p50 / p99 ms", "JetStream", "ratio", "DBOS", "ratio"]
    head += [f"messages/s, {IN_FLIGHT} in flight", "JetStream", "DBOS", "members that come or go, a second"]
    replies = ["request and reply", "p50 / p99 ms", "NATS", "ratio", "Ray actors", "ratio"]
    sizes = ["ms for each message that is handled", *(f"{n:,}" for n in sorted({*MEMBERS, *CHANNELS}))]
    return f"{ABOUT}{table(head, published)}\n{table(replies, replied)}\n{table(sizes, grown)}\n{beside.notes(peers)}"


def _replies(kind: str, n: int, ours: Ours, nats: beside.Found, ray: dict[int, Latency]) -> list[object]:
    found, call = ours.replies[n], ray[n]
    at_most(
        f"request and reply, {n} at once, {kind}: p50 over that of a Ray call", found.p50_ms / call.p50_ms, 1, WHY_CALL
    )
    return [
        f"{kind}: {n} at once",
        found,
        *nats.cells("replies", n, found.p50_ms),
        call,
        f"{call.p50_ms / found.p50_ms:.1f}",
    ]


def _grown(kind: str, ours: Ours) -> list[list[object]]:
    sizes = sorted({*MEMBERS, *CHANNELS})
    rows: list[list[object]] = []
    for what, found in (("members", ours.by_members), ("channels", ours.by_channels)):
        rows.append([f"{kind}, by {what}", *(f"{found[n]:.2f}" if n in found else "" for n in sizes)])
        several = {n: ms for n, ms in found.items() if n >= SEVERAL}
        spread = max(several.values()) / min(several.values())
        name = f"{kind}: the dearest delivery over the cheapest, {min(several):,} to {max(several):,} {what}"
        at_most(name, spread, FLAT, WHY_CHANNELS if (kind, what) == (SQLITE, "channels") else "")
    return rows


async def _of(url: str, kind: str, count: int, seconds: float, *, quick: bool) -> Ours:
    """All figures of one database."""
    found = Ours()
    async with loads.loaded(url) as load, Ears.open(load) as ears:
        await ears.agents(["ear", *(f"ear-{n}" for n in range(IN_FLIGHT))])
        await ears.channels({"one": ["ear"], **{f"of-{n}": [f"ear-{n}"] for n in range(IN_FLIGHT)}})
        found.publish = quantiles([await ears.heard_from("one") for _ in range(count + 5)][5:])
        found.rate = await ears.rate([f"of-{n}" for n in range(IN_FLIGHT)], seconds)
        for at_once in AT_ONCE:
            found.replies[at_once] = await _asking(load, ears, at_once, 10 if quick else ASKS)
        found.churn = await churn.measured(load, kind, seconds)
        found.by_members = await _members(ears, MEMBERS[:-1] if quick else MEMBERS)
        found.by_channels = await _channels(ears, CHANNELS[:-2] if quick else CHANNELS)
    return found


async def _asking(load: loads.Loaded, ears: Ears, at_once: int, asks: int) -> Latency:
    """So many pairs, each asking again and again, as the one that asks sees it."""
    await ears.agents([f"asks-{at_once}-{n}" for n in range(at_once)], "Again")
    await ears.agents([f"says-{at_once}-{n}" for n in range(at_once)], "Says")
    calls = [load.asked(f"asks-{at_once}-{n}", [f"says-{at_once}-{n}", asks]) for n in range(at_once)]
    ids = await asyncio.gather(*calls)
    return quantiles([took for it in ids for took in (await load.answer(it))[2:]])


async def _members(ears: Ears, sizes: Sequence[int]) -> dict[int, float]:
    found = {}
    for size in sizes:
        names = [f"m-{n}" for n in range(size)]
        await ears.agents(names)
        await ears.channels({f"to-{size}": names})
        times = max(3, DELIVERED // size)
        found[size] = 1e3 * await ears.seconds([f"to-{size}"] * times, heard=times * size) / (times * size)
    return found


async def _channels(ears: Ears, sizes: Sequence[int]) -> dict[int, float]:
    found, made = {}, 0
    await ears.agents(f"r-{n}" for n in range(READERS))
    for size in sizes:
        await ears.channels({f"c-{n}": [f"r-{n % READERS}"] for n in range(made, size)})
        made = size
        to = [f"c-{n * size // min(size, DELIVERED)}" for n in range(min(size, DELIVERED))]
        to *= max(1, DELIVERED // len(to))
        found[size] = 1e3 * await ears.seconds(to, heard=len(to)) / len(to)
    return found
