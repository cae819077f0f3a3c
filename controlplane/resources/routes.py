"""Routes: from a source through a filter and a transform to a sink."""

from controlplane.resources.kinds import of_kind
from controlplane.resources.operation import Operation
from schemas.calls import NamedAct
from schemas.replaying import Replayed, ReplayInput
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
    Operation(
        "routes.replay",
        "Read a route's source again",
        "From behind a cursor of its channel, from a time, from a value of the polled column, or from its beginning; "
        "up to `until`, or to where it is now, and then it goes on. By default what was passed on keeps its keys, so "
        "that holes are filled and nothing is doubled; `keys: new` does all of it again, which events and polls need, "
        "because they have no keys that stay. What retention took is told as a gap. It is a change: `changes.wait` "
        "waits until it was read; of a paused route, of events and of a poll, until it was begun. A newer one takes "
        "the place of an older; `cancel` goes on where the route was.",
        ReplayInput,
        Replayed,
        "POST",
        "/v1/routes/{namespace}/{name}/replay",
        "change",
        "operator",
        "namespace",
        imperative=True,
        problems=("NOT_FOUND", "NOT_READY", "NOT_SET_UP", "INVALID_CURSOR", "CONFLICT"),
        example=_NAMED,
    ),
)
