"""`python -m benchmarks [NAME …] [--quick] [--agents N]`: measure, print, and write docs/benchmarks.md.

Without names all are run but `scale`, which takes five minutes by itself. What fails says so in its row, and the
others go on; the command then ends with 1, as it does when a target is missed of which no reason is known.
`--quick` is a look: its figures are not written.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Callable

from benchmarks import beside, failover, mesh, page, scale, startup, surfaces, suspended, targets, turns, wake
from benchmarks.given import Given
from benchmarks.timing import table

Measure = Callable[[Given], str]


def _surfaces(given: Given) -> str:
    with surfaces.bare() as url:
        return asyncio.run(surfaces.measure(given.stack(), url))


BENCHMARKS: dict[str, tuple[str, Measure]] = {
    "start": ("Start and memory", startup.measure),
    "surfaces": ("Surfaces", _surfaces),
    "wake": ("Wake by message", wake.measure),
    "turns": ("Durable turns with external effects", turns.measure),
    "mesh": ("Messages between agents", mesh.measure),
    "failover": ("Failover and migration", failover.measure),
    "suspended": ("A crowd of suspended agents", suspended.measure),
    "scale": ("Ten thousand", scale.measure),
}

LONG = ("scale",)  # by name only


def run(name: str, given: Given) -> tuple[str, bool]:
    """Measure one and show it; what its row says of it, and whether that is good."""
    title, measure = BENCHMARKS[name]
    targets.taken()
    beside.FAILED.clear()
    try:
        section = f"## {title}\n\n{page.made()}\n\n{measure(given)}"
    except Exception as error:  # noqa: BLE001 - the others go on
        given.drop()
        lines = str(error).strip().splitlines() or [""]
        return f"failed: {type(error).__name__}: {lines[0][:300]}", False
    found = targets.taken()
    section += f"\n{targets.summary(found)}" if found else ""
    print(f"\n{section}", flush=True)
    if not given.quick:
        page.write(name, section)
    missed = [it for it in found if not it.met]
    said = "; ".join(f"missed {it.name}: {it.figure:.2f}, not {it.sign} {it.bound:g}" for it in missed)
    broken = "".join(f"failed: {it}; " for it in beside.FAILED)
    return broken + said or "good", all(it.why for it in missed) and not broken


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="few samples, a look; docs/benchmarks.md stays as it is")
    parser.add_argument("--agents", type=int, help="the most agents at once (suspended: 100,000; scale: 10,000)")
    asked = parser.parse_args(argv)
    unknown = [it for it in asked.names if it not in BENCHMARKS]
    if unknown:
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    given = Given(quick=asked.quick, agents=asked.agents)
    rows, good = [], True
    try:
        for name in asked.names or [it for it in BENCHMARKS if it not in LONG]:
            print(f"{name} …", file=sys.stderr, flush=True)
            begun = time.perf_counter()
            said, fine = run(name, given)
            rows.append([name, f"{time.perf_counter() - begun:.0f}", said])
            good = good and fine
    finally:
        given.close()
    print("\n" + table(["benchmark", "seconds", ""], rows), flush=True)
    if not given.quick:
        print(f"written to {page.PATH}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
