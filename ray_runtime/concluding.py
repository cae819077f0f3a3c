"""Conclusions as a turn records them: what they lean on becomes references, or is refused by its place.

An envelope is cited by its id, what the turn asked for by its promise, and a result that is an object or a list by
itself: the latest answer that is equal to it. Other values are too common to say where they came from.
"""

from collections.abc import Sequence
from typing import Any

import orjson
from pydantic import ValidationError

from ray_runtime.arguments import json_bytes
from ray_runtime.awaits import Promise
from ray_runtime.branching import Branching
from ray_runtime.journal import Journal
from ray_runtime.problems import refuse
from schemas.branches import Place
from schemas.conclusion import Conclusion, place_reference
from schemas.envelope import Envelope


def conclusion_bytes(journal: Journal, turn_id: str, said: dict[str, Any]) -> bytes:
    """The record of a conclusion, or a Refusal that names the argument that is wrong."""
    given = {
        **said,
        "because": _references(journal, turn_id, "because", said["because"]),
        "seen": _references(journal, turn_id, "seen", said["seen"]),
        "alternatives": list(_listed("alternatives", said["alternatives"])),
    }
    try:
        made = Conclusion.model_validate(given, strict=True)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        path = "/".join(str(part) for part in fault["loc"])
        raise refuse("INVALID_VALUE", f"conclude: {path}: {fault['msg']}", field=f"/{path}", what=path) from error
    return json_bytes("conclude", made.model_dump())


def _references(journal: Journal, turn_id: str, name: str, given: Sequence[Any]) -> list[str]:
    found = [_reference(journal, turn_id, f"/{name}/{n}", it) for n, it in enumerate(_listed(name, given))]
    return list(dict.fromkeys(found))


def _listed(name: str, given: Sequence[Any]) -> Sequence[Any]:
    if isinstance(given, list | tuple):
        return given
    raise refuse("INVALID_VALUE", f"conclude: {name} is a list", field=f"/{name}", what=name)


def _reference(journal: Journal, turn_id: str, field: str, it: Any) -> str:
    if isinstance(it, str):
        return str(it)
    if isinstance(it, Envelope):
        return it.id
    if isinstance(it, Promise) and not isinstance(it, Branching) and it.journal is journal and it.position >= 0:
        return place_reference(turn_id, *it.place)
    if isinstance(it, dict | list) and (place := _place_of(journal, it)) is not None:
        return place_reference(turn_id, *place)
    what = it.said if isinstance(it, Promise) else type(it).__name__
    detail = (
        f"conclude: nobody can tell where {field[1:]} came from ({what}): give an envelope, the id of a message, "
        "what turn.perform or turn.ask answers once it was awaited, or an object or a list as it came"
    )
    raise refuse("INVALID_VALUE", detail, field=field, what=what)


def _place_of(journal: Journal, value: Any) -> Place | None:
    """The latest place whose answer is this value."""
    for place in reversed(journal.told):
        answer = journal.known(place)
        if answer is not None and orjson.loads(answer.result or b"null") == value:
            return place
    return None
