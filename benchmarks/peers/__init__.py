"""Peers, measured in processes and environments of their own; `make peers` fetches them."""
