"""On which of Ray's nodes something may be: by labels that the node must have, and not where nobody is let in. Pure."""

from collections.abc import Mapping, Sequence

NODE_ID_LABEL = "ray.io/node-id"


def selector(labels: Mapping[str, str], avoid: Sequence[str]) -> dict[str, str]:
    """Ray's `label_selector`; who asks for one node by its id asks for no other."""
    other = {NODE_ID_LABEL: f"!in({','.join(avoid)})"} if avoid else {}
    return other | dict(labels)
