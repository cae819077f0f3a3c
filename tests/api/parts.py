"""What a plane of these tests is made of: the real handlers, real tokens, and a gate that is away."""

import time
from typing import Any

from controlplane.feedback import log
from controlplane.feedback.cursors import Cursors
from controlplane.feedback.doorbell import LocalDoorbell
from controlplane.guard import tokens
from controlplane.operations import discovery, system
from controlplane.operations.living import code, hosts, turns
from controlplane.operations.pipeline import Dispatcher
from controlplane.store.store import Store
from schemas.ports import Handler
from schemas.principal import PLANE, Principal

ISSUED: dict[str, dict[str, Any]] = {
    "admin": {"principal": "admin", "role": "admin", "namespaces": ["*"]},
    "operator": {"principal": "op", "role": "operator", "namespaces": ["default"]},
    "viewer": {"principal": "eye", "role": "viewer", "namespaces": ["default"]},
    "foreign": {"principal": "abroad", "role": "operator", "namespaces": ["elsewhere"]},
    "agent": {"principal": "self", "role": "agent", "namespaces": ["default"], "agent": "echo"},
}


def facts() -> system.Facts:
    return system.Facts("test", "0.0.0", ready=True, gate="away", ray="away", ray_dashboard=None, processes=[], problems=[])


def dispatcher(store: Store, bell: LocalDoorbell, cursors: Cursors) -> Dispatcher:
    """The dispatcher with every handler that needs no gate."""
    found: dict[str, Handler] = {}
    made = Dispatcher(found, store, time.time)

    async def call(principal: Principal, name: str, raw: dict[str, Any]) -> Any:
        return await made.call(principal, name, raw)

    found |= discovery.handlers(call)
    found |= log.handlers(store, bell, cursors)
    found |= system.handlers(store, facts, cursors.seal)
    found |= tokens.handlers(store)
    found |= hosts.handlers(store)
    found |= turns.handlers(store)
    found |= code.handlers(store)
    return made


async def issue(made: Dispatcher, **given: Any) -> tuple[str, str]:
    """A token and its id."""
    output: Any = await made.call(PLANE, "tokens.create", given)
    return output.token, output.token_id


def authenticator(store: Store) -> Any:
    async def authenticate(token: str) -> Principal:
        return await tokens.authenticate(store, token, time.time())

    return authenticate
