"""The files that every copy of the project carries."""

from pathlib import Path

import pytest

from controlplane import VERSION
from controlplane.resources.catalogue import OPERATIONS
from tests.notices import NOTICES, notices

ROOT = Path(__file__).parents[2]


def test_the_notices_name_what_the_lock_installs() -> None:
    """`python -m tests.notices` makes it so."""
    assert NOTICES.read_text(encoding="utf-8") == notices()


def test_the_licence_is_whole() -> None:
    """Apache-2.0, with its terms and its holder."""
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    for said in ("Version 2.0, January 2004", "END OF TERMS AND CONDITIONS", "Copyright 2026 The Steward authors"):
        assert said in text


def test_the_changelog_has_this_version() -> None:
    """A version is released with what users notice of it."""
    assert f"## {VERSION}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/recipes/add-an-operation.md", "docs/operations/README.md"])
def test_links_between_pages_lead_somewhere(page: str) -> None:
    """Every relative link is a file that is there."""
    import re

    path = ROOT / page
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


def test_the_recipe_names_only_fields_that_no_operation_has() -> None:
    """What every command takes is no field of any input."""
    fields = {field for operation in OPERATIONS.values() for field in operation.input.model_fields}
    assert fields & {"url", "token", "output", "file", "code"} == set()
