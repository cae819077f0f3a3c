"""Revisions of the tables, and the environment that runs them. Driven by `controlplane.store.migrate` alone."""
