"""What a host serves: one namespace, one code digest, and, where it is an agent's own, that agent alone.

For whom a host is kept says also what it needs, so an agent that comes to want something else has
another key: it leaves a host that no longer fits as it leaves one with other code.
"""

from typing import Any, NamedTuple

import orjson

from schemas.base import canonical

SHARED = ""


class Key(NamedTuple):
    """Agents of one key may share a host. `reserved` is empty, or a `schemas.wire.Apart` as JSON."""

    namespace: str
    digest: str
    reserved: str = SHARED


def address_of(reserved: str) -> str | None:
    """Whose own a host is; None where agents share it."""
    return str(orjson.loads(reserved)["address"]) if reserved else None


def reserved_for(uid: str, namespace: str, name: str, spec: dict[str, Any]) -> str:
    """For whom a host is kept, and what it needs; empty when the agent shares one."""
    if spec.get("isolation", "shared") == "shared":
        return SHARED
    apart = {
        "agent": uid,
        "address": f"{namespace}/{name}",
        "resources": spec.get("resources") or {},
        "environment": spec.get("environment") or {},
    }
    if spec["isolation"] == "confined":
        apart["confined"] = True
    return canonical(apart).decode()
