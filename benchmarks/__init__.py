"""Measurements against named yardsticks, in one run. `make bench` prints them and writes docs/benchmarks.md."""
