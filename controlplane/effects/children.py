"""What a child is made of: its parent's spec, and what the spawn says. Pure."""

from typing import Any


def child_spec(parent: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    """The parent's spec, with what the spawn says; grants are narrowed, never widened."""
    mandate = dict(parent.get("mandate") or {})
    held = mandate.get("grants") or []
    wanted = body.get("grants")
    mandate["grants"] = held if wanted is None else [grant for grant in held if _granted(grant, wanted)]
    if body.get("purpose") is not None:
        mandate["purpose"] = body["purpose"]
    child = {**parent, "mandate": mandate, "watches": []}
    if body.get("entrypoint") is not None:
        child["entrypoint"] = body["entrypoint"]
    if body.get("config") is not None:
        child["config"] = body["config"]
    return child


def _granted(held: dict[str, Any], wanted: list[dict[str, Any]]) -> bool:
    return any(it.get("effect") == held["effect"] and it.get("connection") == held.get("connection") for it in wanted)
