"""`make bench`: every measurement in one run; prints it and writes docs/benchmarks.md.

Ends with an error when a target is missed; the page is written all the same, and says which.
"""

import asyncio
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

import psutil

from benchmarks import scale, startup, surfaces, targets, wake, wakes
from tests.stack import Stack

OUT = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

Made by `make bench`, in one run, on one machine: {cores} cores, {memory:.0f} GB, {system}, Python {python}, {day}.
Other load on the machine moves rates more than ratios: read the ratios. SQLite runs with `synchronous=FULL`.

"""


def head() -> str:
    return HEAD.format(
        cores=os.cpu_count(),
        memory=psutil.virtual_memory().total / 1e9,
        system=platform.system(),
        python=platform.python_version(),
        day=datetime.now(UTC).date().isoformat(),
    )


def main() -> None:
    stack = Stack(ray_dashboard=True)  # as for a user
    try:
        parts = [head(), "## Start\n\n", startup.measure(stack)]
        print("".join(parts), flush=True)
        sections = (
            ("Surfaces", lambda url: asyncio.run(surfaces.measure(stack, url))),
            ("Wake of a suspended agent", lambda _: wakes.measure(stack)),
            ("The gate by itself", lambda _: wake.on_both()),
            ("Memory", lambda _: startup.memory(stack)),
        )
        with surfaces.bare() as url:
            for title, measure in sections:
                parts.append(f"\n## {title}\n\n" + measure(url))
                print(parts[-1], flush=True)
    finally:
        stack.close()
    parts.append("\n## Ten thousand\n\n" + scale.measure())
    print(parts[-1], flush=True)
    parts.append("\n## Targets\n\n" + targets.summary())
    print(parts[-1], flush=True)
    OUT.write_text("".join(parts))
    print(f"written to {OUT}")
    if targets.missed():
        sys.exit("missed: " + "; ".join(targets.missed()))


if __name__ == "__main__":
    main()
