"""Reader: takes this machine's readings by a timer, and publishes them.

Every reading is an effect under its mandate's one grant, `machine.read`. Whatever the kernel counts
is kept in the state until the next reading, so that a rate covers the whole time in between and
not a moment. It decides nothing about what it sees.
"""

from typing import Any

from pydantic import BaseModel, Field

from ray_runtime import Agent, Envelope, Turn

INTERVAL_S = 2.0
WHAT = ("cpu", "memory", "disks", "network")


class ReaderState(BaseModel):
    """The counters of the reading before, and when they were taken."""

    interval_s: float = 0.0
    readings: int = 0
    taken_at_s: float = 0.0
    counters: dict[str, float] = Field(default_factory=dict)


class Reader(Agent):
    """Publishes one reading every few seconds."""

    state: ReaderState

    async def on_start(self, turn: Turn) -> None:
        self._set_timer(turn)

    async def on_timer(self, turn: Turn, timer: Envelope) -> None:
        if self.state.interval_s != self._interval_s():
            self._set_timer(turn)  # the spec was changed since
        seen = {what: await turn.perform("machine.read", what=what) for what in WHAT}
        at_s = turn.now().timestamp()
        counters = counters_of(seen)
        moved = moved_between(self.state.counters, counters, at_s - self.state.taken_at_s)
        self.state.readings += 1
        self.state.taken_at_s = at_s
        self.state.counters = counters
        taken_at = turn.now().isoformat().replace("+00:00", "Z")
        await turn.publish(
            self.config.get("channel", "readings"),
            {"taken_at": taken_at, "measures": {**levels_of(seen), **moved}},
        )

    def _interval_s(self) -> float:
        return float(self.config.get("interval_s", INTERVAL_S))

    def _set_timer(self, turn: Turn) -> None:
        self.state.interval_s = self._interval_s()
        turn.timer("reading", after_s=0.0, every_s=self.state.interval_s)


def levels_of(seen: dict[str, Any]) -> dict[str, float]:
    """What is a level of the moment."""
    fullest = max((mount["disk_percent"] for mount in seen["disks"]["mounts"]), default=0.0)
    return {
        "tasks_running": seen["cpu"]["running"],
        "memory_percent": seen["memory"]["memory_percent"],
        "disk_percent": fullest,
    }


def counters_of(seen: dict[str, Any]) -> dict[str, float]:
    """What only grows since boot."""
    cores = {f"core_{core}_busy_s": busy_s for core, busy_s in enumerate(seen["cpu"]["per_core_busy_s"])}
    return {
        "busy_s": seen["cpu"]["busy_s"],
        "total_s": seen["cpu"]["total_s"],
        "disk_bytes": seen["disks"]["read_bytes"] + seen["disks"]["written_bytes"],
        "network_bytes": seen["network"]["received_bytes"] + seen["network"]["sent_bytes"],
        **cores,
    }


def moved_between(before: dict[str, float], now: dict[str, float], elapsed_s: float) -> dict[str, float]:
    """Rates between two readings; none for the first one, nor across a reboot, which sets counters back."""
    grown = {name: now[name] - before[name] for name in now if name in before}
    if len(grown) != len(now) or elapsed_s <= 0 or any(step < 0 for step in grown.values()):
        return {}
    total_s = grown["total_s"]
    if total_s <= 0:
        return {}
    cores = [step for name, step in grown.items() if name.startswith("core_")]
    core_s = total_s / max(1, len(cores))
    return {
        "cpu_percent": round(min(100.0, 100.0 * grown["busy_s"] / total_s), 1),
        "busiest_core_percent": round(min(100.0, 100.0 * max(cores, default=0.0) / core_s), 1),
        "disk_bytes_per_s": round(grown["disk_bytes"] / elapsed_s, 1),
        "network_bytes_per_s": round(grown["network_bytes"] / elapsed_s, 1),
    }
