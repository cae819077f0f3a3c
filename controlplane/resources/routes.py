"""Routes: from a source through a filter and a transform to a sink."""

from controlplane.resources.kinds import of_kind
from controlplane.resources.operation import Operation
from schemas.calls import NamedAct
from schemas.route import Route, RouteManifest

EXAMPLE = {
    "kind": "Route",
    "metadata": {"namespace": "default", "name": "alarms", "labels": {}},
    "spec": {
        "source": {"channel": "readings"},
        "filter": "data.celsius > 90.0",
        "transform": '{"what": "too hot", "celsius": celsius}',
        "sink": {"channel": "alarms"},
        "samples": [{"celsius": 95.5}],
    },
}
_NAMED = {"namespace": "default", "name": "alarms"}


def _act(verb: str, summary: str, description: str) -> Operation:
    return Operation(
        f"routes.{verb}",
        summary,
        description,
        NamedAct,
        Route,
        "POST",
        f"/v1/routes/{{namespace}}/{{name}}/{verb}",
        "change",
        "operator",
        "namespace",
        imperative=True,
        problems=("NOT_FOUND", "NOT_READY", "NOT_SET_UP"),
        example=_NAMED,
    )


OPERATIONS = (
    *of_kind("Route", RouteManifest, Route, EXAMPLE, ("UNKNOWN_EFFECT", "SCHEMA_MISMATCH", "ROUTE_LOOP")),
    _act("pause", "Pause a route", "It passes nothing on until `routes.resume`; what comes meanwhile is kept."),
    _act("resume", "Resume a route", "It goes on where it was paused."),
)
