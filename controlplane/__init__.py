"""Steward's control plane."""
