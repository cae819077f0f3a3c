"""Runs tests/tidy.py under pytest, and holds the notices against what the locks name."""

from tests.notices import NOTICES, notices
from tests.tidy import test_the_house_is_tidy as test_the_house_is_tidy


def test_the_notices_name_what_the_locks_bring() -> None:
    """THIRD_PARTY_NOTICES.md is what `python -m tests.notices` writes."""
    assert NOTICES.read_text(encoding="utf-8") == notices()
