"""Runs tests/tidy.py under pytest."""

from tests.tidy import test_the_house_is_tidy as test_the_house_is_tidy
