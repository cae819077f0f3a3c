"""Tests of what can be done with living agents, their turns and their channels."""
