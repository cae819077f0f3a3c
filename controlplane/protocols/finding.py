"""Which effector performs an effect: the one of its name, or the one that its family resolves. Pure."""

from collections.abc import Mapping

from typing_extensions import TypeIs

from controlplane.resources.problems import problem
from schemas.ports import Effector, Family, Link
from schemas.problem import Problem, Refusal
from schemas.protocols import Performer

EVERY = ".*"
WHY_CHARS_MAX = 500


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
    except Exception as error:  # noqa: BLE001 - the boundary of strangers' packages
        why = f"{type(error).__name__}: {error}"[:WHY_CHARS_MAX]
        detail = f"{performer.name} could not say what {effect} is: {why}"
        return problem("EFFECT_FAILED", detail, effect=effect, error=type(error).__name__)


def effector_of(effect: str, performers: Mapping[str, Performer], link: Link | None) -> Effector | None:
    """The effector of an effect; None where there is none, or none over that connection."""
    performer = performer_of(effect, performers)
    if performer is None or not is_family(performer):
        return performer
    if link is None or link.spec.protocol != performer.protocol:
        return None
    found = resolved(effect, performer, link)
    return None if isinstance(found, Problem) else found
