"""The hands: SDK, hosts, turns, leases, placement."""
