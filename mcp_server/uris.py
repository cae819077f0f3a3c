"""`steward://` addresses: a resource of ours as an MCP resource, and the feedback log."""

from typing import Any, NamedTuple

import mcp_types as types

from mcp_server.intents import NOUNS

FEEDBACK = "steward://feedback"
TEMPLATE = "steward://{kind}/{namespace}/{name}"


class Address(NamedTuple):
    kind: str
    namespace: str
    name: str


def parse(uri: str) -> Address | None:
    """The resource that a URI names; None when it names none of ours."""
    scheme, _, rest = str(uri).partition("://")
    parts = rest.split("/")
    if scheme != "steward" or len(parts) != 3 or parts[0] not in NOUNS or not all(parts):
        return None
    return Address(*parts)


def uri_of(kind: str, namespace: str, name: str) -> str:
    return TEMPLATE.format(kind=kind, namespace=namespace, name=name)


def listed(item: Any) -> types.Resource:
    """One item of a page, as a list of resources shows it."""
    metadata = item.metadata
    return types.Resource(
        uri=uri_of(item.kind, metadata.namespace, metadata.name),
        name=f"{metadata.namespace}/{metadata.name}",
        description=item.kind,
        mime_type="application/json",
    )


TEMPLATES = [
    types.ResourceTemplate(
        uri_template=TEMPLATE,
        name="resource",
        description=f"One resource with its spec and status; kind is one of {', '.join(NOUNS)}.",
        mime_type="application/json",
    )
]
FEEDBACK_RESOURCE = types.Resource(
    uri=FEEDBACK,
    name="feedback",
    description="The last events; subscribe to be told of new ones, and wait to read them.",
    mime_type="application/json",
)
