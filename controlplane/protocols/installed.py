"""The protocols that are installed. To import it is to look for them, which takes a quarter of a second: a spare gate
has done so before anybody waits for it."""

from controlplane.protocols.registry import registry

PROTOCOLS = registry()
