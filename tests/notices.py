"""THIRD_PARTY_NOTICES.md, from the metadata of what the lock installed: `python -m tests.notices` writes it.

Named are the packages that Steward itself asks for (pyproject.toml), with the version of the lock and
the licence that each says it has. A test fails when the file is out of date or a licence is unknown.
"""

import re
import sys
import tomllib
from importlib.metadata import PackageMetadata, metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTICES = ROOT / "THIRD_PARTY_NOTICES.md"
HEAD = """\
# Third-party notices

Steward is licensed under the Apache License 2.0 (LICENSE), Copyright 2026 The Steward authors.
It contains no code of others. It is installed together with the packages below, each under its own
licence, whose text comes with the package (`*.dist-info/licenses`), and with what they need in
turn; `requirements.lock` names all of it, by version and hash. This file is made by
`python -m tests.notices`.
"""


def notices() -> str:
    """The text of the file, as it should be."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    needed, tools = project["project"]["dependencies"], project["dependency-groups"]["dev"]
    return "\n".join(
        [HEAD, "## Needed to run", "", *_table(needed), "", "## Needed to develop and test", "", *_table(tools), ""]
    )


def _table(requirements: list[str]) -> list[str]:
    rows = ["| package | version | licence |", "|---|---|---|"]
    for name in sorted({name_of(requirement) for requirement in requirements}, key=str.lower):
        known = metadata(name)
        rows.append(f"| {name} | {known['Version']} | {licence(known)} |")
    return rows


def name_of(requirement: str) -> str:
    """The name in a requirement such as `ray[default]==2.0`."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found, requirement
    return found[0]


def licence(known: PackageMetadata) -> str:
    """What a package says of its licence: the expression, else the field, else the classifiers."""
    classifiers = [it.rpartition(" :: ")[2] for it in known.get_all("Classifier") or [] if it.startswith("License")]
    field = (known.get("License") or "").strip()
    short = field if field and "\n" not in field and len(field) < 60 else ""
    found = known.get("License-Expression") or short or " / ".join(classifiers)
    assert found, f"{known['Name']} does not say its licence"
    return found


if __name__ == "__main__":
    NOTICES.write_text(notices(), encoding="utf-8")
    sys.exit(0)
