"""Which effects there are over a connection, and what is known of each before it is asked for. Without I/O."""

from collections.abc import Iterable, Mapping
from math import isinf
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from controlplane.protocols.finding import is_family, resolved
from schemas.agent import Grant
from schemas.offered_effects import OfferedEffect
from schemas.ports import Described, Effector, Given, Link, Listing, Offered, Preview, Role, Roles
from schemas.problem import Problem
from schemas.protocols import Performer

ANYTHING: Mapping[str, Any] = {"type": "object"}


def names_of(link: Link, performers: Mapping[str, Performer], pinned: Iterable[str]) -> tuple[list[str], list[str]]:
    """The effects of a connection, in order, those of tools that were `pinned` too; and families that name none."""
    found, unlisted = set[str](), list[str]()
    for name, it in performers.items():
        if it.protocol != link.spec.protocol:
            continue
        if not is_family(it):
            found.add(name)
        elif isinstance(it, Listing):
            found |= set(it.effects(link))
        else:
            unlisted.append(name)
    tools = {f"{link.spec.protocol}.{it}" for it in pinned}
    return sorted(found | tools), [] if tools else unlisted


def view(effect: str, link: Link, performers: Mapping[str, Performer]) -> OfferedEffect:
    """One effect. Of one that can not be used stands there why, and nothing that would be guessed."""
    performer = performers.get(effect) or performers[f"{effect.partition('.')[0]}.*"]
    found = resolved(effect, performer, link)
    common: dict[str, Any] = {"effect": effect, "grant": Grant(effect=effect, connection=link.name)}
    if isinstance(found, Problem):
        return OfferedEffect(
            **common, description="", arguments=dict(ANYTHING), roles={}, fault=found.detail, reads_only=False,
            magnitude="unknown", repeats="never", repeats_for_s=None, repeating_methods=[],
        )  # fmt: skip
    schema = _schema(found)
    magnitude = "none" if found.reads_only else "counted" if isinstance(found, Preview) else "unknown"
    return OfferedEffect(
        **common, description=found.description if isinstance(found, Described) else "", arguments=schema,
        roles=_roles(found, schema), fault=None, reads_only=found.reads_only, magnitude=magnitude,
        **_repeats(found, link),
    )  # fmt: skip


def _schema(effector: Effector) -> dict[str, Any]:
    arguments = effector.arguments
    if isinstance(arguments, type):
        return arguments.model_json_schema()
    return dict(effector.offered if isinstance(effector, Offered) else arguments)


def _roles(effector: Effector, schema: Mapping[str, Any]) -> dict[str, Role]:
    """Of each argument that the schema names."""
    said = effector.roles if isinstance(effector, Roles) else {}
    properties = schema.get("properties")
    return {name: said.get(name, "payload") for name in (properties if isinstance(properties, dict) else ())}


def _repeats(effector: Effector, link: Link) -> dict[str, Any]:
    """What is promised of sending it again: the same for all arguments, or by the method of a request."""
    by_method = {method: _promised(effector, given, link) for method, given in _samples(effector).items()}
    always = [method for method, seconds in by_method.items() if isinf(seconds)]
    longest = max((it for it in by_method.values() if not isinf(it)), default=0.0)
    if effector.reads_only or len(always) == len(by_method):
        return {"repeats": "always", "repeats_for_s": None, "repeating_methods": []}
    if always:
        return {"repeats": "by_method", "repeats_for_s": longest or None, "repeating_methods": always}
    word = "for_a_time" if longest else "never"
    return {"repeats": word, "repeats_for_s": longest or None, "repeating_methods": []}


def _promised(effector: Effector, given: BaseModel, link: Link) -> float:
    """For how long, by its own word; nothing where that depends on arguments that are not there."""
    try:
        return effector.repeats_for_s(given, link.spec)
    except (ValidationError, AttributeError, KeyError):
        return 0.0


def _samples(effector: Effector) -> dict[str, BaseModel]:
    """Arguments to ask by: one for each method, where there is a choice of them."""
    arguments = effector.arguments
    if not isinstance(arguments, type):
        return {"": Given({})}
    methods = get_args(arguments.model_fields["method"].annotation) if "method" in arguments.model_fields else ()
    if not methods:
        return {"": arguments.model_construct()}
    return {str(it): arguments.model_construct(method=it) for it in methods}
