"""Latencies as quantiles, and tables of them."""

import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass


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
    for _ in range(warm):
        await call()
    samples = []
    for _ in range(n):
        start = time.perf_counter()
        await call()
        samples.append(time.perf_counter() - start)
    return quantiles(samples)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"
