"""Whether a connection's protocol takes it: its options, its endpoint. Pure, as protocols promise.

The schemas of our own protocols refuse before this what they can say; here stands what none can, and all
of what strangers' protocols say.
"""

from collections.abc import Mapping, Sequence

from controlplane.mesh.dataschema import data_fault
from controlplane.operations.world import Wanted
from controlplane.protocols.mcp_allowed import Startable
from controlplane.resources.problems import refuse
from schemas.connection import connection_spec
from schemas.mcp_connection import STDIO, McpConnection
from schemas.problem import Next
from schemas.protocols import Declaration


def look_at(wanted: Sequence[Wanted], protocols: Mapping[str, Declaration]) -> None:
    """Let protocols look at what is wanted of them, which may take a while the first time; `check_protocol` tells."""
    for it in wanted:
        if it.kind == "Connection" and it.action == "apply":
            spec = connection_spec(it.spec)
            if (declared := protocols.get(spec.protocol)) is not None:
                declared.fault(spec)


def check_protocol(it: Wanted, protocols: Mapping[str, Declaration], startable: Startable | None = None) -> None:
    """Refuse a connection of a protocol that is not there, or that does not take it, or to a process not allowed here.

    Without `startable` processes are not looked at.
    """
    spec, place = connection_spec(it.spec), f"{it.place}/spec"
    declared = protocols.get(spec.protocol)
    if declared is None or not declared.connects:
        known = sorted(name for name, one in protocols.items() if one.connects)
        detail = f"there is no protocol {spec.protocol} for connections; there are {', '.join(known)}"
        step = Next(operation="system.status", arguments={}, why="shows protocols that could not be loaded")
        about = {"protocol": spec.protocol, "known": known}
        raise refuse("UNKNOWN_PROTOCOL", detail, field=f"{place}/protocol", next=[step], **about)
    if declared.options is not None and (wrong := data_fault(dict(declared.options), it.spec["options"])) is not None:
        detail = f"the options do not meet the schema of protocol {spec.protocol}: {wrong}"
        raise refuse("INVALID_VALUE", detail, field=f"{place}/options", protocol=spec.protocol, fault=wrong)
    if (fault := declared.fault(spec)) is not None:
        at, why = fault
        raise refuse("INVALID_VALUE", why, field=f"{place}{at}", protocol=spec.protocol, fault=why)
    if startable is not None and isinstance(spec, McpConnection) and spec.endpoint == STDIO:
        startable.require(spec, it.name, place)
