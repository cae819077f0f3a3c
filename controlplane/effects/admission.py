"""Whether an effect may be judged at all: it exists, its arguments fit, the turn has room for it. Pure."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from controlplane.resources.problems import problem
from schemas.ports import Effector
from schemas.problem import Problem


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
