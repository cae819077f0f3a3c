"""Which effector performs an effect: the one of its name, or the one that its family resolves. Pure."""

from collections.abc import Mapping

from typing_extensions import TypeIs

from schemas.ports import Effector, Family, Link
from schemas.problem import Problem, Refusal
from schemas.protocols import Performer

EVERY = ".*"


def performer_of(effect: str, performers: Mapping[str, Performer]) -> Performer | None:
    """Who performs an effect: the effector of that name, or the family of its protocol."""
    return performers.get(effect) or performers.get(effect.partition(".")[0] + EVERY)


def is_family(performer: Performer) -> TypeIs[Family]:
    return performer.name.endswith(EVERY)


def resolved(effect: str, performer: Performer, link: Link | None) -> Effector | Problem:
    """The effector itself, or the one that its family knows over a connection of its protocol."""
    if not is_family(performer):
        return performer
    assert link is not None  # a family has a protocol
    try:
        return performer.resolve(effect, link)
    except Refusal as refusal:
        return refusal.problem


def effector_of(effect: str, performers: Mapping[str, Performer], link: Link | None) -> Effector | None:
    """The effector of an effect; None where there is none, or none over that connection."""
    performer = performer_of(effect, performers)
    if performer is None or not is_family(performer):
        return performer
    if link is None or link.spec.protocol != performer.protocol:
        return None
    found = resolved(effect, performer, link)
    return None if isinstance(found, Problem) else found
