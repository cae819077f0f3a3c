"""The growth of figures as a picture, log over log: the same figures make the same file, to the byte."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot

TIMES = (
    ("created, started, verified", "create: verified"),
    ("taken away", "to none: verified"),
    ("all woken at once", "all at once"),
    ("one agent more", "one more: verified"),
    ("fleets.get", "fleets.get"),
    ("first page of 100", "first page"),
    ("last page of 100", "last page"),
    ("agents.get", "agents.get"),
    ("wake, p50", "wake p50"),
)
Series = Mapping[int, Mapping[str, float]]


def draw(series: Series, path: Path) -> None:
    """Times on the left; bytes of the store and of the processes on the right."""
    with mpl.rc_context({"svg.hashsalt": "steward", "svg.fonttype": "path", "font.size": 9}):
        figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 5), layout="constrained")
        counts = list(series)
        for label, key in TIMES:
            left.plot(counts, [it[key] for it in series.values()], marker="o", markersize=3, label=label)
        held = {"store": [it["bytes"] * n for n, it in series.items()]}
        for name in ("gate", "plane"):
            held[f"memory of the {name}"] = [it[f"memory {name}"] * 1e6 for it in series.values()]
        for label, values in held.items():
            right.plot(counts, values, marker="o", markersize=3, label=label)
        _axes(left, counts, "milliseconds", 1.0)
        _axes(right, counts, "bytes", 4096.0 * counts[0])
        figure.savefig(path, format="svg", metadata={"Date": None})
        pyplot.close(figure)


def _axes(axes: Any, counts: list[int], unit: str, start: float) -> None:
    """Log over log, with a line of slope 1 from `start`."""
    slope = [start * count / counts[0] for count in counts]
    axes.plot(
        counts, slope, linestyle="--", color="gray", label="slope 1" if start == 1.0 else "slope 1: 4 KiB an agent"
    )
    axes.set(xscale="log", yscale="log", xlabel="agents", ylabel=unit)
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(fontsize=8)
