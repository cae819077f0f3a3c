"""Whether an effect may be judged at all: it exists, its arguments fit, the turn has room for it. Pure."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from controlplane.mesh.dataschema import data_fault
from controlplane.protocols.finding import performer_of, resolved
from controlplane.resources.problems import problem
from schemas.ports import Effector, Given, Link
from schemas.problem import Next, Problem
from schemas.protocols import Performer

KNOWN_MAX = 100


def admit(
    effect: str,
    arguments: Any,
    position: int,
    effects_max: int,
    performers: Mapping[str, Performer],
    namespace: str,
    connection: str | None,
    link: Link | None,
) -> tuple[Effector, BaseModel] | Problem:
    """The effector and its arguments, over the connection of that name, which `link` is if there is one; or why not."""
    if position >= effects_max:
        detail = f"a turn of this agent has at most {effects_max} effects"
        return problem("LIMIT_REACHED", detail, limit="effects_max", max=effects_max)
    performer = performer_of(effect, performers)
    if performer is None:
        known = sorted(performers)[:KNOWN_MAX]
        return problem("UNKNOWN_EFFECT", f"there is no effect {effect}", effect=effect, known=known)
    wrong = misconnected(effect, performer.protocol, namespace, connection, link)
    if wrong is not None:
        return wrong
    effector = resolved(effect, performer, link)
    return effector if isinstance(effector, Problem) else _fitting(effector, arguments)


def roles_of(effector: Effector) -> dict[str, str]:
    """What its arguments are for, by their names; empty where it does not say."""
    return dict(getattr(effector, "roles", ()))  # an isinstance of `Roles` would cost more than the rest of a verdict


def fitted(effector: Effector, arguments: Any) -> BaseModel:
    """The arguments as the effector takes them; raises ValidationError, or ValueError."""
    wanted = effector.arguments
    if isinstance(wanted, type):
        return wanted.model_validate(arguments)
    if not isinstance(arguments, dict):
        raise ValueError("the arguments are no object")
    if (fault := data_fault(dict(wanted), arguments)) is not None:
        raise ValueError(fault)
    return Given(arguments)


def _fitting(effector: Effector, arguments: Any) -> tuple[Effector, BaseModel] | Problem:
    try:
        return effector, fitted(effector, arguments)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = "/".join(["/arguments", *(str(part) for part in first["loc"])])
        said = first["msg"]
    except ValueError as error:
        place, said = "/arguments", str(error)
    detail = f"{effector.name}: {place}: {said}"
    return problem("INVALID_VALUE", detail, field=place, effect=effector.name, message=said)


def misconnected(
    effect: str, protocol: str | None, namespace: str, name: str | None, link: Link | None
) -> Problem | None:
    """Why the effect can not be done over this connection; None when it can."""
    about: dict[str, Any] = {"effect": effect, "connection": name, "protocol": protocol}
    if protocol is None:
        detail = f"{effect} takes no connection"
        return None if name is None else problem("INVALID_VALUE", detail, field="/connection", **about)
    if name is None:
        detail = f"{effect} takes a connection of protocol {protocol}"
        return problem("INVALID_VALUE", detail, field="/connection", **about)
    if link is None:
        step = Next(operation="connections.list", arguments={"namespace": namespace}, why="shows the connections")
        detail = f"there is no connection {namespace}/{name}"
        return problem("NO_CONNECTION", detail, field="/connection", next=[step], namespace=namespace, name=name)
    if link.spec.protocol != protocol:
        detail = f"{effect} takes a connection of protocol {protocol}, and {name} has {link.spec.protocol}"
        return problem("INVALID_VALUE", detail, field="/connection", **about, given=link.spec.protocol)
    return None
