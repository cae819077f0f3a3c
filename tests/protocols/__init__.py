"""Protocols: loading them, their connections, their listeners."""
