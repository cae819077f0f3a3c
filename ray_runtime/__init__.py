"""The hands: SDK, hosts, turns, leases, placement. `from ray_runtime import Agent, Turn`."""

from ray_runtime.sdk import Agent, Turn
from ray_runtime.versions import downgrade, migration
from schemas.envelope import Envelope
from schemas.problem import Refusal

__all__ = ["Agent", "Envelope", "Refusal", "Turn", "downgrade", "migration"]
