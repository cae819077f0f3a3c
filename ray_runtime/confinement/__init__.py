"""Confinement: a process with a uid of its own, no network, and a view of the disk that holds what it needs only."""
