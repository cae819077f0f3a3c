"""What an agent says that it takes and answers, where it is asked for one of its capabilities."""

from typing import Any

import orjson
from pydantic import TypeAdapter
from sqlmodel import Session, col, select

from controlplane.mesh.dataschema import data_fault
from controlplane.resources.problems import refuse
from controlplane.store.store import Store
from controlplane.store.tables import ResourceRow
from schemas.calls import AskInput
from schemas.capability import Capabilities, Capability
from schemas.problem import Next

SHOWN_MAX = 100
_CAPABILITIES: TypeAdapter[list[Capability | str]] = TypeAdapter(Capabilities)


async def wanted(store: Store, given: AskInput, name: str) -> Capability:
    """The capability, whose schema the data meets; or the refusal."""
    offered = await store.read(lambda session: _offered(session, given.namespace, given.name))
    about: dict[str, Any] = {"namespace": given.namespace, "name": given.name, "capability": name}
    found = next((it for it in offered if it.name == name), None)
    if found is None:
        look = {"namespace": given.namespace, "name": given.name}
        step = Next(operation="agents.get", arguments=look, why="shows what it offers, in its spec")
        detail = f"{given.namespace}/{given.name} offers no {name}"
        known = [it.name for it in offered][:SHOWN_MAX]
        raise refuse("NOT_FOUND", detail, field="/capability", next=[step], **about, known=known)
    if found.input_schema is not None and (fault := data_fault(found.input_schema, given.data)) is not None:
        detail = f"the data does not meet what {name} of {given.namespace}/{given.name} takes: {fault}"
        raise refuse("SCHEMA_MISMATCH", detail, field="/data", **about, error=fault)
    return found


def require_reply(capability: Capability, reply: Any, given: AskInput, message_id: str) -> None:
    """Refuse an answer that is not what the agent says that it answers."""
    schema = capability.output_schema
    if schema is None or (fault := data_fault(schema, reply)) is None:
        return
    detail = f"the answer of {given.namespace}/{given.name} does not meet what its {capability.name} says: {fault}"
    about: dict[str, Any] = {"namespace": given.namespace, "name": given.name, "capability": capability.name}
    raise refuse("OUTPUT_MISMATCH", detail, **about, error=fault, message_id=message_id)


def _offered(session: Session, namespace: str, name: str) -> list[Capability]:
    named = (ResourceRow.kind == "Agent", ResourceRow.namespace == namespace, ResourceRow.name == name)
    query = select(col(ResourceRow.spec)).where(*named, col(ResourceRow.deleted_at).is_(None))
    spec = session.exec(query).first()
    return [] if spec is None else capabilities_of(orjson.loads(spec))


def capabilities_of(spec: dict[str, Any]) -> list[Capability]:
    """Those of a stored spec; records of before hold names alone."""
    return [it for it in _CAPABILITIES.validate_python(spec.get("capabilities", [])) if isinstance(it, Capability)]
