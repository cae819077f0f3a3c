"""The guard: tokens and secrets."""
