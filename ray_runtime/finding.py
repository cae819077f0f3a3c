"""`turn.find`: what is asked, checked at the call, and what was found."""

from typing import Any

import orjson
from pydantic import ValidationError

from ray_runtime.arguments import json_bytes
from ray_runtime.problems import refuse
from schemas.discovery import FindEffect, Found, FoundAgent


def find_bytes(**asked: Any) -> bytes:
    """The arguments of the effect; what is left out is left out there, too."""
    given = json_bytes("find", {name: value for name, value in asked.items() if value is not None})
    try:
        FindEffect.model_validate_json(given, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = "/".join(["", *(str(part) for part in first["loc"])])
        raise refuse("INVALID_VALUE", f"find: {place}: {first['msg']}", field=place, what="find") from None
    return given


def found_agents(result: bytes) -> list[FoundAgent]:
    """The agents, the best first."""
    return list(Found.model_validate(orjson.loads(result)).items)
