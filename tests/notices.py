"""THIRD_PARTY_NOTICES.md, from the metadata of what the lock installed: `python -m tests.notices` writes it.

Named are the packages that Steward itself asks for (pyproject.toml, and tests/node/package.json for
tests), with the version of the lock and the licence that each says it has. A test fails when the file
is out of date or a licence is unknown.
"""

import json
import re
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageMetadata, metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTICES = ROOT / "THIRD_PARTY_NOTICES.md"
NPM_LOCK = ROOT / "tests" / "node" / "package-lock.json"
IN_TRANSITION = {"@modelcontextprotocol/inspector": "Apache-2.0, older parts MIT"}  # says its LICENSE file
TEXTS = {"Permission is hereby granted, free of charge, to any person obtaining": "MIT"}  # where only the text is given
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
    groups = project["dependency-groups"]
    needed, tools = project["project"]["dependencies"] + groups["offline"], groups["dev"]
    packages = json.loads(NPM_LOCK.read_text(encoding="utf-8"))["packages"]
    from_npm = {name: packages[f"node_modules/{name}"] for name in packages[""]["devDependencies"]}
    parts = {
        "Needed to run": _table(needed),
        "Needed to develop and test": _table(tools),
        "Needed to test, from npm": _rows(
            (name, it["version"], _npm_licence(name, it)) for name, it in from_npm.items()
        ),
    }
    sections = (line for title, table in parts.items() for line in (f"## {title}", "", *table, ""))
    return "\n".join([HEAD, *sections])


def _table(requirements: list[str]) -> list[str]:
    names = sorted({name_of(requirement) for requirement in requirements}, key=str.lower)
    return _rows((name, metadata(name)["Version"], licence(metadata(name))) for name in names)


def _npm_licence(name: str, package: dict[str, str]) -> str:
    said = package["license"]
    return IN_TRANSITION[name] if said.startswith("SEE LICENSE") else said


def _rows(packages: Iterable[tuple[str, str, str]]) -> list[str]:
    return ["| package | version | licence |", "|---|---|---|", *(f"| {' | '.join(it)} |" for it in packages)]


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
    found = known.get("License-Expression") or short or " / ".join(classifiers) or _by_text(field)
    assert found, f"{known['Name']} does not say its licence"
    return found


def _by_text(text: str) -> str:
    return next((name for start, name in TEXTS.items() if start in text), "")


if __name__ == "__main__":
    NOTICES.write_text(notices(), encoding="utf-8")
    sys.exit(0)
