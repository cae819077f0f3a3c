"""Runtimes that bring their own code: an agent of runtime `llm` is Steward's package and a model.

The package's source is stored under its digest like any agent's, so that a parked turn goes on with the
release it began with. A spec that is applied anew gets the newest.
"""

from pathlib import Path
from typing import Any

from controlplane.mesh.dataschema import schema_fault
from controlplane.operations.codecheck import code_digest, pointer
from controlplane.operations.world import Spec
from controlplane.resources.problems import refuse
from schemas.problem import Next

PACKAGE = "steward_llm"
ENTRYPOINT = f"{PACKAGE}:LlmAgent"
_SOURCE = Path(__file__).resolve().parents[2] / "ray_runtime" / "llm"
FILES = {f"{PACKAGE}/{it.name}": it.read_text(encoding="utf-8") for it in sorted(_SOURCE.glob("*.py"))}
DIGEST = code_digest(FILES)
REQUEST = "llm.request"


def of_llm(spec: Spec, place: str) -> None:
    """Give an agent of runtime `llm` its code; refuse what could not work."""
    llm = spec["llm"]
    spec["code"], spec["entrypoint"] = {"digest": DIGEST}, ENTRYPOINT
    _require_schemas(llm, f"{place}/llm")
    granted = any(
        it["effect"] in (REQUEST, "llm.*") and it["connection"] == llm["connection"] for it in spec["mandate"]["grants"]
    )
    if not granted:
        detail = f"the mandate does not grant {REQUEST} over {llm['connection']}, so the model could not be asked"
        step = Next(operation="operations.describe", arguments={"name": "agents.propose"}, why="shows how to grant it")
        about: dict[str, Any] = {"effect": REQUEST, "connection": llm["connection"]}
        raise refuse("NOT_GRANTED", detail, field=f"{place}/mandate/grants", next=[step], **about)


def _require_schemas(llm: dict[str, Any], place: str) -> None:
    given = {pointer(place, "output"): llm["output"]}
    given |= {f"{place}/tools/{number}/parameters": it["parameters"] for number, it in enumerate(llm["tools"])}
    for field, schema in given.items():
        if schema is None:
            continue
        fault = schema_fault(schema) or (None if schema.get("type") == "object" else "its type is not object")
        if fault is not None:
            raise refuse("INVALID_VALUE", f"the schema can not be used: {fault}", field=field, fault=fault)
