"""Arguments of the turn's methods: what is refused at the call, and the one form that is recorded.

A name is completed to `namespace/name`, so that the record says the same wherever it is read.
Data becomes JSON at once: what a handler changes later is not sent. Pydantic models, times and
UUIDs are taken; NaN and the infinities become null, as everywhere in JSON here.
"""

import math
import re
from collections.abc import Sequence
from typing import Any, Literal

import orjson
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from ray_runtime.problems import refuse
from schemas.agent import Entrypoint, Grant
from schemas.base import NAME_PATTERN, Frozen, Name, Text
from schemas.chain import Allowance
from schemas.compute import ComputeRun
from schemas.entry import GRANTS_MAX, NAME_CHARS_MAX, PURPOSE_CHARS_MAX, SECONDS_MAX
from schemas.envelope import Envelope
from schemas.posting import Posted, Urgency
from schemas.question import Asking

Json = Any
_NAME = re.compile(NAME_PATTERN)
_allowance: TypeAdapter[dict[str, float]] = TypeAdapter(Allowance)


class Spawn(Frozen):
    """A child as its parent asks for it; null is as the parent has it."""

    name: Name
    entrypoint: Entrypoint | None
    config: dict[str, Any] | None
    purpose: Text | None = Field(max_length=PURPOSE_CHARS_MAX)
    grants: list[Grant] | None = Field(max_length=GRANTS_MAX)
    budget: Allowance | None
    scope: Literal["turn", "agent"] | None


def spawn_bytes(**given: Any) -> bytes:
    """The record of a spawn, or a Refusal that names the argument that is wrong."""
    try:
        spawn = Spawn(**given)
        optional = {name for name in ("budget", "scope") if getattr(spawn, name) is None}
        return json_bytes("spawn", spawn.model_dump(exclude=optional))
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        path = "/".join(str(part) for part in fault["loc"])
        raise refuse("INVALID_VALUE", f"spawn: {path}: {fault['msg']}", field=f"/{path}", what=path) from error


def question_bytes(question: str, choices: Sequence[str] | None, deadline_s: float | None) -> bytes:
    """The record of a question to a person, or a Refusal that names the argument that is wrong."""
    until = None if deadline_s is None else seconds("deadline_s", deadline_s)
    if isinstance(choices, str):
        raise refuse("INVALID_VALUE", "ask_human: choices are a list of texts", field="/choices", what="choices")
    wanted = None if choices is None else list(choices)
    try:
        asking = Asking(question=question, choices=wanted)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        path = "/".join(str(part) for part in fault["loc"])
        raise refuse("INVALID_VALUE", f"ask_human: {path}: {fault['msg']}", field=f"/{path}", what=path) from error
    if wanted is not None and len(set(wanted)) < len(wanted):
        raise refuse("INVALID_VALUE", "ask_human: a choice is given twice", field="/choices", what="choices")
    return json_bytes("ask_human", {**asking.model_dump(), "deadline_s": until})


def compute_bytes(function: str, args: Sequence[Any], kwargs: dict[str, Any], **rest: Any) -> bytes:
    """The arguments of a compute, or a Refusal that names the one that is wrong. Defaults are left out."""
    given = orjson.loads(json_bytes("compute", {"function": function, "args": args, "kwargs": kwargs}))
    try:
        asked = ComputeRun.model_validate(given | {name: it for name, it in rest.items() if it is not None})
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        path = "/".join(str(part) for part in fault["loc"])
        said = f"compute: {path}: {fault['msg']}" if path else f"compute: {fault['msg']}"
        raise refuse("INVALID_VALUE", said, field=f"/{path}", what=path) from error
    return json_bytes("compute", asked.model_dump(mode="json", exclude_defaults=True))


def envelopes(said: str, data: Any) -> list[Any]:
    """Envelopes as JSON, of which there is at least one."""
    try:
        found = [Envelope.model_validate(it) for it in data]
    except (TypeError, ValidationError) as error:
        raise refuse("INVALID_VALUE", f"{said}: a batch is a list of envelopes", field="/data", what=said) from error
    if not found:
        raise refuse("INVALID_VALUE", f"{said}: a batch has at least one envelope", field="/data", what=said)
    return [it.model_dump(mode="json", exclude_none=True) for it in found]


def json_bytes(said: str, value: Any) -> bytes:
    """Canonical JSON of a value, or a Refusal that says what is not JSON in it."""
    try:
        return orjson.dumps(value, default=_model, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        raise refuse("INVALID_VALUE", f"{said}: the data is not JSON: {error}", what=said, error=str(error)) from error


def _model(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} is not JSON serializable")


def first_read(start: str, after: str | None) -> dict[str, Any]:
    """From where a channel is read, as it is recorded."""
    if after is not None:
        if not isinstance(after, str) or not re.fullmatch(r"[0-9]{1,18}", after):
            raise refuse("INVALID_VALUE", "join: the cursor is not one of a channel", field="/after", what="after")
        return {"start": "cursor", "after": int(after)}
    if start not in ("now", "beginning"):
        raise refuse("INVALID_VALUE", "join: the start is `now` or `beginning`", field="/start", what="start")
    return {"start": start}


def agent_address(to: str, namespace: str) -> str:
    """`namespace/name` of an agent, from a name, an address, or an envelope's source."""
    return _address(to, namespace, "agents")


def channel_address(to: str, namespace: str) -> str:
    """`namespace/name` of a channel, from a name or an address."""
    return _address(to, namespace, "channels")


def _address(to: str, namespace: str, kind: str) -> str:
    parts = to.split("/") if isinstance(to, str) else []
    if len(parts) == 1:
        parts = [namespace, *parts]
    elif len(parts) == 4 and not parts[0] and parts[2] == kind:
        parts = [parts[1], parts[3]]
    if len(parts) != 2 or not all(_NAME.fullmatch(part) for part in parts):
        what = kind.removesuffix("s")
        detail = f"{to!r} names no {what}: give `name`, `namespace/name` or `/namespace/{kind}/name`"
        raise refuse("INVALID_VALUE", detail, to=str(to), kind=what)
    return "/".join(parts)


def allowance(said: str, value: dict[str, float] | None) -> dict[str, Any]:
    """What a record says of a budget: nothing where there is none, so that older ones still read the same."""
    if value is None:
        return {}
    try:
        return {"budget": _allowance.validate_python(value)}
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        path = "/".join(str(part) for part in ("budget", *fault["loc"]))
        raise refuse("INVALID_VALUE", f"{said}: {path}: {fault['msg']}", field=f"/{path}", what=path) from error


def received(said: str, over: str | None) -> dict[str, str]:
    """What a record says of the connection that data came in over: nothing where it came over none."""
    if over is None:
        return {}
    if not isinstance(over, str) or not _NAME.fullmatch(over):
        detail = f"{said}: {over!r} is no name of a connection"
        raise refuse("INVALID_VALUE", detail, field="/received_over", what=said)
    return {"received_over": over}


def seconds(said: str, value: float, least: float = 0.0) -> float:
    """A finite number of seconds within bounds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise refuse("INVALID_VALUE", f"{said}: {value!r} is no number of seconds", what=said)
    if not least <= value <= SECONDS_MAX:
        detail = f"{said}: {value} s is not within {least} and {SECONDS_MAX}"
        raise refuse("INVALID_VALUE", detail, what=said, value=value, least=least, most=SECONDS_MAX)
    return float(value)


def order_key(said: str, value: str | None) -> str | None:
    """A key of at most 200 characters, or none."""
    if value is not None and (not isinstance(value, str) or len(value) > NAME_CHARS_MAX or "\x00" in value):
        detail = f"{said}: a key is text of at most {NAME_CHARS_MAX} characters, without NUL"
        raise refuse("INVALID_VALUE", detail, what=said)
    return value


def posting(said: str, key: str | None, priority: int, delay_s: float, ttl_s: float | None) -> dict[str, Any]:
    """How a message goes, as it is recorded: what is not said is left out."""
    return {"key": order_key(said, key), **_how(said, Posted, priority=priority, delay_s=delay_s, ttl_s=ttl_s)}


def urgency(said: str, priority: int, ttl_s: float | None) -> dict[str, Any]:
    """How the message of a question goes, in the same way."""
    return _how(said, Urgency, priority=priority, ttl_s=ttl_s)


def _how(said: str, model: type[Urgency], **given: Any) -> dict[str, Any]:
    try:
        how = model(**given)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        path = "/".join(str(part) for part in fault["loc"])
        raise refuse("INVALID_VALUE", f"{said}: {path}: {fault['msg']}", field=f"/{path}", what=path) from error
    return how.model_dump(mode="json", exclude_defaults=True)


def short_name(said: str, value: str) -> str:
    """A non-empty name of at most 200 characters."""
    if not isinstance(value, str) or not 0 < len(value) <= NAME_CHARS_MAX or "\x00" in value:
        raise refuse("INVALID_VALUE", f"{said}: a name has 1 to {NAME_CHARS_MAX} characters, none NUL", what=said)
    return value


def least_answers(asked: int, quorum: int | None, *, first: bool) -> int:
    """How many answers are enough: all, unless a quorum or the first is."""
    if first and quorum is not None:
        raise refuse("INVALID_VALUE", "ask_all: give first or quorum, not both", field="/quorum", quorum=quorum)
    if quorum is None:
        return min(1, asked) if first else asked
    if isinstance(quorum, bool) or not isinstance(quorum, int) or not 1 <= quorum <= asked:
        detail = f"ask_all: a quorum of {quorum!r} is not within 1 and the {asked} that are asked"
        raise refuse("INVALID_VALUE", detail, field="/quorum", quorum=str(quorum), asked=asked)
    return quorum
