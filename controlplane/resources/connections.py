"""Connections: named ways to the outside, with their limits and what the far side promises."""

from controlplane.resources.kinds import of_kind
from controlplane.resources.operation import Operation
from schemas.connection import Connection, ConnectionManifest
from schemas.offered_effects import EffectList, EffectsInput
from schemas.offers import AcceptInput, ToolList, ToolsInput, ToolView

EXAMPLE = {
    "kind": "Connection",
    "metadata": {"namespace": "default", "name": "billing", "labels": {}},
    "spec": {
        "protocol": "http",
        "endpoint": "https://billing.example.com/v1",
        "options": {"idempotency_header": "Idempotency-Key", "key_lifetime_s": 86_400},
    },
}
_NAMED = {"namespace": "default", "name": "billing"}
OPERATIONS = (
    *of_kind("Connection", ConnectionManifest, Connection, EXAMPLE, ("UNKNOWN_PROTOCOL", "NOT_SET_UP")),
    Operation(
        "connections.tools",
        "List the tools that a connection's far side offers",
        "As its server describes them now, with what was accepted of each and what has changed since. A tool that is "
        "new or has changed is refused to agents until `connections.accept`. Protocols without tools have none.",
        ToolsInput,
        ToolList,
        "GET",
        "/v1/connections/{namespace}/{name}/tools",
        "read",
        "operator",
        "namespace",
        problems=("NOT_FOUND", "INVALID_CURSOR", "NOT_READY"),
        untrusted=(
            "/items/*/tool", "/items/*/effect", "/items/*/description", "/items/*/input_schema",
            "/items/*/output_schema", "/items/*/fault", "/items/*/changes", "/trouble",
        ),
        example=_NAMED,
    ),
    Operation(
        "connections.effects",
        "List what agents can do over a connection",
        "Each effect with the schema of its arguments, their roles, what is known beforehand of how much it touches, "
        "whether it repeats safely, and the grant that an agent needs. What can not be done now says why: an operation "
        "that can not be mapped, a tool that is not accepted. Nothing is asked of the far side.",
        EffectsInput,
        EffectList,
        "GET",
        "/v1/connections/{namespace}/{name}/effects",
        "read",
        "viewer",
        "namespace",
        problems=("NOT_FOUND", "INVALID_CURSOR"),
        untrusted=("/items/*/effect", "/items/*/description", "/items/*/arguments", "/items/*/fault"),
        example=_NAMED,
    ),
    Operation(
        "connections.accept",
        "Accept a tool as it is described",
        "Named by the digest of what was seen; from then on agents whose mandate grants its effect may use it, until "
        "its server describes it otherwise. The roles of its arguments are confirmed with it.",
        AcceptInput,
        ToolView,
        "POST",
        "/v1/connections/{namespace}/{name}/accept",
        "change",
        "operator",
        "namespace",
        imperative=True,
        problems=("NOT_FOUND", "TOOL_CHANGED", "TOOL_NOT_ACCEPTED", "NOT_READY", "CONFLICT"),
        untrusted=("/tool", "/effect", "/description", "/input_schema", "/output_schema", "/fault", "/changes"),
        example={**_NAMED, "tool": "invoices_create", "digest": "sha256:" + 64 * "0", "roles": {"amount": "quantity"}},
    ),
)  # fmt: skip
