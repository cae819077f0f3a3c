"""Latencies as quantiles, and tables of them."""

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

# What ours and the peers are measured over alike; this file is read in their environment, too.
EFFECTS = (0, 1, 3, 9)
IN_FLIGHT = 64
AT_ONCE = (1, 50)
STATES = {"1 KiB": 1_024, "100 KiB": 102_400, "10 MiB": 10_485_760}


@dataclass(frozen=True)
class Latency:
    """Quantiles of a latency in milliseconds, over `n` calls one after the other."""

    p50_ms: float
    p99_ms: float
    n: int

    def __str__(self) -> str:
        return f"{self.p50_ms:.2f} / {self.p99_ms:.2f}"


def quantiles(samples_s: Sequence[float]) -> Latency:
    cuts = statistics.quantiles(samples_s, n=100, method="inclusive")
    return Latency(cuts[49] * 1e3, cuts[98] * 1e3, len(samples_s))


async def serial(call: Callable[[], Awaitable[object]], n: int, warm: int = 30) -> Latency:
    """One call after the other."""
    return quantiles(await samples(call, n, warm))


async def samples(call: Callable[[], Awaitable[object]], n: int, warm: int = 5) -> list[float]:
    """The seconds that each of some calls took, one after the other."""
    for _ in range(warm):
        await call()
    found = []
    for _ in range(n):
        start = time.perf_counter()
        await call()
        found.append(time.perf_counter() - start)
    return found


async def rate(call: Callable[[int], Awaitable[object]], in_flight: int, seconds: float) -> float:
    """Calls a second with so many at once, each from a place of its own that is never doubled."""
    begun, done = time.perf_counter(), 0

    async def place(number: int) -> None:
        nonlocal done
        while time.perf_counter() - begun < seconds:
            await call(number)
            done += 1

    await asyncio.gather(*(place(number) for number in range(in_flight)))
    return done / (time.perf_counter() - begun)


def append(path: Path, text: str) -> None:
    """The external effect of all: a line at the end of a file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, f"{text}\n".encode())
    os.close(descriptor)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"
