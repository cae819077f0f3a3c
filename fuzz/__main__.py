"""`make fuzz`: every target for as long as is allowed, from a random seed that is printed.

Exits 1 for a finding, and for an operation that was never accepted.
"""

import argparse
import os
import secrets
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from fuzz.mcp_report import McpReport
from fuzz.mcp_runner import McpFuzz
from fuzz.mcp_wire import Wire
from fuzz.rules import UNREACHED
from fuzz.runner import Bound, Report, Target, fuzz
from fuzz.targets import in_process, live
from tests.postgres import Postgres

TARGETS: dict[str, tuple[Callable[[str | None], AbstractContextManager[Target]], bool]] = {
    "in-process-sqlite": (in_process, False),
    "in-process-postgresql": (in_process, True),
    "live-sqlite": (live, False),
    "live-postgresql": (live, True),
    "mcp-sqlite": (live, False),
    "mcp-postgresql": (live, True),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=int(os.environ.get("STEWARD_FUZZ_S", "600")), help="a target")
    parser.add_argument("--seed", type=int, default=int(os.environ.get("STEWARD_FUZZ_SEED", secrets.randbelow(2**32))))
    parser.add_argument("targets", nargs="*", metavar="target", help=f"of {', '.join(TARGETS)}; all of them by default")
    given = parser.parse_args()
    if unknown := set(given.targets) - set(TARGETS):
        parser.error(f"there is no target {', '.join(sorted(unknown))}")
    print(f"seed {given.seed}, {given.seconds} s a target", flush=True)
    found = [_run(name, given.seed, given.seconds) for name in given.targets or TARGETS]
    return 1 if any(found) else 0


def _run(name: str, seed: int, seconds: int) -> bool:
    """Whether anything was found, or something never reached: the run was blind there."""
    make, wants_postgres = TARGETS[name]
    server = Postgres() if wants_postgres else None
    try:
        with make(server.create() if server is not None else None) as target:
            report = _fuzz_mcp(target, seed, seconds) if name.startswith("mcp-") else _fuzz_rest(target, seed, seconds)
    finally:
        if server is not None:
            server.close()
    unreached = report.never_accepted() - set(UNREACHED)
    print(f"{name}: {report.text()}\nnever accepted: {', '.join(sorted(unreached)) or 'none'}", flush=True)
    return bool(report.findings or unreached)


def _fuzz_rest(target: Target, seed: int, seconds: int) -> Report:
    return fuzz(target, seed, Bound(examples=1000, walks=200, lives=200, steps=25, seconds=seconds))


def _fuzz_mcp(target: Target, seed: int, seconds: int) -> McpReport:
    wire = Wire(target.url, target.token)
    try:
        run = McpFuzz(wire, seed)
        run.run(examples=10, until=time.monotonic() + seconds)
        return run.finish()
    finally:
        wire.close()


if __name__ == "__main__":
    sys.exit(main())
