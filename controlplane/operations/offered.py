"""Whether the schemas of what an agent offers can be judged by. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from controlplane.mesh.dataschema import schema_fault
from controlplane.resources.problems import refuse


def require_schemas(capabilities: Sequence[Mapping[str, Any]], place: str) -> None:
    """Refuse the first schema of a capability that can not be used, with its place."""
    for index, capability in enumerate(capabilities):
        for side in ("input_schema", "output_schema"):
            schema = capability[side]
            if schema is not None and (fault := schema_fault(schema)):
                raise refuse("INVALID_VALUE", f"{side}: {fault}", field=f"{place}/{index}/{side}", fault=fault)
