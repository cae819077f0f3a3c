"""Chains, as messages make them: the record that says what a message and all the work because of it may use. Pure.

It is written by the unit that commits the message, under the message's id; the envelope names it, and so does
every envelope that is sent because of it, until one brings a chain of its own, which lies within.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from controlplane.store import chains
from schemas.base import canonical

if TYPE_CHECKING:
    from controlplane.effects.turnref import Row, TurnRef


@dataclass(frozen=True, slots=True)
class Chain:
    """What a turn lies within: the innermost chain, how many there are, the least of what they allow of each meter."""

    chain_id: str
    depth: int
    limits: Mapping[str, float]


def opened_by(
    turn: "TurnRef", made: str, wanted: dict[str, float] | None, now: float
) -> tuple[list["Row"], dict[str, Any]]:
    """A chain of its own for what a turn makes, and how the envelope names it; cut to what the turn lies within."""
    if wanted is None:
        return [], {}
    above = turn.chain.limits if turn.chain is not None else {}
    limits = {meter: min(most, above.get(meter, most)) for meter, most in wanted.items()}
    parent = turn.chain.chain_id if turn.chain is not None else None
    return [opening(made, turn.namespace, parent, turn.address, turn.onbehalfof, None, limits, now)], {"chainid": made}


def opening(
    chain_id: str, namespace: str, parent: str | None, by: str, onbehalfof: str | None,
    intent: str | None, limits: Mapping[str, float], now: float,
) -> "Row":  # fmt: skip
    """The record of a chain. Who makes the same message again finds it there."""
    given = (chain_id, namespace, parent, by, onbehalfof, intent, canonical(dict(limits)).decode(), now)
    return chains.OPEN, given, -1
