"""The worker of a route: the agent that does it, as a route's spec makes it. Pure.

It is owned by its route as a fleet's agents are by their fleet, watches the source, and may do what the sink needs and
nothing else. Its code is Steward's own; a route that is applied anew gets the newest.
"""

from pathlib import Path
from typing import Any

from controlplane.operations.codecheck import code_digest
from schemas.agent import AgentSpec

PACKAGE = "steward_route"
ENTRYPOINT = f"{PACKAGE}:RouteAgent"
_SOURCE = Path(__file__).resolve().parents[2] / "ray_runtime" / "route"
FILES = {f"{PACKAGE}/{it.name}": it.read_text(encoding="utf-8") for it in sorted(_SOURCE.glob("*.py"))}
DIGEST = code_digest(FILES)
QUERY = "sql.query"
TURN_S_MAX = 900.0


def worker_name(route: str) -> str:
    return f"{route}-0"


def worker_spec(namespace: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """The spec of the agent that does a route."""
    digest = spec["worker"] or DIGEST
    made = AgentSpec.model_validate(
        {
            "code": {"digest": digest},
            "entrypoint": ENTRYPOINT,
            "config": {"spec": {**spec, "samples": []}, "worker": f"{namespace}/{worker_name(name)}"},
            "watches": _watches(spec["source"]),
            "mandate": {"purpose": f"does route {name}", "grants": _grants(spec)},
            "limits": {"turn_s_max": TURN_S_MAX},
        }
    ).model_dump(mode="json")
    return {**made, "code": {"digest": digest}}


def fleet_spec(namespace: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """A route as a fleet of one, which is how its worker comes and goes."""
    return {"replicas": 1, "template": {"labels": {}, "spec": worker_spec(namespace, name, spec)}}


def _watches(source: dict[str, Any]) -> list[dict[str, Any]]:
    if "channel" in source:
        return [{"channel": source["channel"], "start": source["start"]}]
    if "events" in source:
        return [{"feedback": source["events"]}]
    return [{"cron": source["poll"]["cron"], "name": "poll"}]


def _grants(spec: dict[str, Any]) -> list[dict[str, Any]]:
    source, sink = spec["source"], spec["sink"]
    asked = [{"effect": QUERY, "connection": source["poll"]["connection"]}] if "poll" in source else []
    done = [{"effect": sink["effect"], "connection": sink["connection"]}] if "effect" in sink else []
    return [*asked, *done]
