"""Steward's control plane."""

VERSION = "0.1.0"
