"""`discovery.find` as an effect: `turn.find`. An agent finds in its own namespace, and what invitations open to it.
It needs no grant for that.

It reads records of ours and nothing else, so that doing it twice is doing it once; what was found is in the
journal, and a replay finds the same.
"""

from math import inf
from typing import Any

from pydantic import BaseModel

from controlplane.mesh.candidates import Key
from controlplane.mesh.finding import Finder
from schemas.discovery import FIND, FindEffect, FindInput
from schemas.endpoint import ConnectionSpec
from schemas.ports import EffectCall


class FindEffector:
    """Finds agents for an agent."""

    name = FIND
    protocol: str | None = None
    timeout_s = 30.0
    reads_only = True
    arguments: type[BaseModel] = FindEffect

    def __init__(self, finder: Finder) -> None:
        self._finder = finder

    def repeats_for_s(self, arguments: BaseModel, spec: ConnectionSpec | None) -> float:
        return inf

    async def ready(self) -> None:
        """It is, once it is made."""

    async def execute(self, arguments: BaseModel, call: EffectCall) -> Any:
        """Who was found, as JSON."""
        asked = FindEffect.model_validate(arguments, from_attributes=True)
        found = await self._finder.find(
            FindInput(**asked.model_dump()), (call.namespace,), Key(call.namespace, call.agent)
        )
        return found.model_dump(mode="json")
