"""Tests of the examples, on the machine they run on."""
