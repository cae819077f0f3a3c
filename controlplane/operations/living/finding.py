"""`discovery.find`: who is there, within what the caller sees."""

import time

from controlplane.mesh.finding import Finder
from controlplane.store.discovery import MEANING
from controlplane.store.store import Store
from controlplane.store.unit import Unit
from schemas.discovery import FindInput, Found
from schemas.ports import Embed, Handler
from schemas.principal import Call, Principal


def handlers(store: Store, embed: Embed) -> dict[str, Handler]:
    """The handler of `discovery.find`."""

    async def keep(namespace: str, mark: str, vector: bytes) -> None:
        await store.write(Unit().raw(MEANING, [namespace, mark, vector, time.time()]))

    finder = Finder(store.read_aside, embed, keep)

    async def find(call: Call, given: FindInput) -> Found:
        return await finder.find(given, seen(call.principal, given.namespace))

    return {"discovery.find": find}


def seen(principal: Principal, namespace: str | None) -> tuple[str, ...] | None:
    """The namespaces that are looked into; None: all."""
    if namespace is not None:
        return (namespace,)
    return None if "*" in principal.namespaces else principal.namespaces
