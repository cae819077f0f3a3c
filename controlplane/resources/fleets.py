"""Fleets: a number of agents from one template."""

from controlplane.resources.agents import EXAMPLE as AGENT
from controlplane.resources.kinds import of_kind
from schemas.fleet import Fleet, FleetManifest

EXAMPLE = {
    "kind": "Fleet",
    "metadata": {"namespace": "default", "name": "echoes", "labels": {}},
    "spec": {"replicas": 3, "template": {"labels": {}, "spec": AGENT["spec"]}},
}
OPERATIONS = of_kind("Fleet", FleetManifest, Fleet, EXAMPLE)
