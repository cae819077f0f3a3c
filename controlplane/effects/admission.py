"""Whether an effect may be judged at all: it exists, its arguments fit, the turn has room for it. Pure."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from controlplane.resources.problems import problem
from schemas.connection import ConnectionSpec
from schemas.ports import Effector
from schemas.problem import Next, Problem


def admit(
    effect: str, arguments: Any, position: int, effects_max: int, effectors: Mapping[str, Effector]
) -> tuple[Effector, BaseModel] | Problem:
    """The effector and its arguments; or why not."""
    if position >= effects_max:
        detail = f"a turn of this agent has at most {effects_max} effects"
        return problem("LIMIT_REACHED", detail, limit="effects_max", max=effects_max)
    effector = effectors.get(effect)
    if effector is None:
        known = sorted(effectors)
        return problem("UNKNOWN_EFFECT", f"there is no effect {effect}", effect=effect, known=known)
    try:
        return effector, effector.arguments.model_validate(arguments)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = "/".join(["/arguments", *(str(part) for part in first["loc"])])
        detail = f"{effect}: {place}: {first['msg']}"
        return problem("INVALID_VALUE", detail, field=place, effect=effect, message=first["msg"])


def misconnected(effector: Effector, namespace: str, name: str | None, spec: ConnectionSpec | None) -> Problem | None:
    """Why the effect can not be done over this connection; None when it can."""
    about: dict[str, Any] = {"effect": effector.name, "connection": name, "protocol": effector.protocol}
    if effector.protocol is None:
        detail = f"{effector.name} takes no connection"
        return None if name is None else problem("INVALID_VALUE", detail, field="/connection", **about)
    if name is None:
        detail = f"{effector.name} takes a connection of protocol {effector.protocol}"
        return problem("INVALID_VALUE", detail, field="/connection", **about)
    if spec is None:
        step = Next(operation="connections.list", arguments={"namespace": namespace}, why="shows the connections")
        detail = f"there is no connection {namespace}/{name}"
        return problem("NO_CONNECTION", detail, field="/connection", next=[step], namespace=namespace, name=name)
    if spec.protocol != effector.protocol:
        detail = f"{effector.name} takes a connection of protocol {effector.protocol}, and {name} has {spec.protocol}"
        return problem("INVALID_VALUE", detail, field="/connection", **about, given=spec.protocol)
    return None
