"""Connections: named ways to the outside, with their limits and what the far side promises."""

from controlplane.resources.kinds import of_kind
from schemas.connection import Connection, ConnectionManifest

EXAMPLE = {
    "kind": "Connection",
    "metadata": {"namespace": "default", "name": "billing", "labels": {}},
    "spec": {
        "protocol": "http",
        "endpoint": "https://billing.example.com/v1",
        "options": {"idempotency_header": "Idempotency-Key", "key_lifetime_s": 86_400},
    },
}
OPERATIONS = of_kind("Connection", ConnectionManifest, Connection, EXAMPLE, ("UNKNOWN_PROTOCOL",))
