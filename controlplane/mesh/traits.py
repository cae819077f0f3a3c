"""What an agent is found by, from its spec alone. Pure.

Its meaning is what it says of itself: its purpose, and its capabilities with what they are for. Its name
is no part of that, so that the agents of a fleet mean the same, and one vector stands for all of them. An
agent that says nothing is not found by meaning.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from controlplane.store.discovery import TRAIT, TRAIT_SPAWNED, UNTRAIT
from controlplane.store.unit import Unit

MEANING, CAPABILITY = "meaning", "capability"
Trait = tuple[str, str]


def meaning_of(spec: Mapping[str, Any]) -> str:
    """The text that it is compared by; empty where it says nothing."""
    purpose = (spec.get("mandate") or {}).get("purpose") or ""
    return meaning_text(purpose, spec.get("capabilities") or ())


def meaning_text(purpose: str, capabilities: Any) -> str:
    """A purpose and capabilities, as one text."""
    lines = [purpose.strip()]
    for it in capabilities:
        name = _name(it).replace("-", " ")
        said = "" if isinstance(it, str) else it.get("description", "").strip()
        lines.append(f"{name}: {said}" if said else name)
    return "\n".join(line for line in lines if line)


def mark_of(text: str) -> str:
    """The mark of a text: its vector is kept under that."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def traits_of(spec: Mapping[str, Any] | None) -> frozenset[Trait]:
    """Kind and value of each trait; none of no spec."""
    if not spec:
        return frozenset()
    return traits(meaning_of(spec), spec.get("capabilities") or ())


def traits(text: str, capabilities: Any) -> frozenset[Trait]:
    """Those of a text and of capabilities."""
    found = {(CAPABILITY, _name(it)) for it in capabilities}
    return frozenset(found | ({(MEANING, mark_of(text))} if text else set()))


def put_traits(unit: Unit, namespace: str, name: str, before: frozenset[Trait], after: frozenset[Trait]) -> None:
    """Bring what is kept from the traits before to those after."""
    for kind, value in sorted(before - after):
        unit.raw(UNTRAIT, [kind, namespace, value, name])
    for kind, value in sorted(after - before):
        unit.raw(TRAIT, [kind, namespace, value, name])


def spawned(uid: str, spec: Mapping[str, Any]) -> list[tuple[str, tuple[str, ...], int]]:
    """The rows of a child that a turn spawns, if it comes to be."""
    return [(TRAIT_SPAWNED, (kind, value, uid), -1) for kind, value in sorted(traits_of(spec))]


def _name(capability: Any) -> str:
    return capability if isinstance(capability, str) else str(capability["name"])
