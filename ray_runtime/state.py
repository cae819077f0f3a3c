"""State: what an agent keeps between turns, as JSON bytes.

The bytes are the truth. A turn works on a value read from them and never on one that an earlier
turn left behind, so that an agent that stayed in memory and one that was suspended see the same.
What is committed was read back once: a state that could be written but not read again is refused
while its turn can still fail. What code of another version stored is brought to this one first.
"""

import hashlib
import inspect
import typing
from typing import Any, Protocol

import orjson
from pydantic import BaseModel, ValidationError

from ray_runtime.problems import refuse
from ray_runtime.versions import Versions

HASHED_BYTES_MAX = 65_536  # of a state that is hashed where an effect is asked for; larger ones at durable awaits only


class Codec(Protocol):
    """Between a state and its bytes."""

    @property
    def version(self) -> int:
        """The version that states have which it writes."""

    def load(self, state: bytes, version: int | None = None) -> Any:
        """The state that was stored under a version; None is the codec's own."""

    def dump(self, state: Any) -> bytes: ...


def state_digest(state: bytes) -> str:
    """`sha256:<hex>` of the bytes as stored."""
    return "sha256:" + hashlib.sha256(state).hexdigest()


def state_mark(state: bytes) -> str:
    """A short hash of a state within a turn, as journals hold it: 16 hex digits of its SHA-256."""
    return hashlib.sha256(state).hexdigest()[:16]


def codec_of(agent: type) -> Codec:
    """The codec of an agent class, by its annotation of `state`."""
    wanted, versions = _annotation(agent), Versions(agent)
    if wanted in (Any, dict) or typing.get_origin(wanted) is dict:
        return FreeState(versions)
    if isinstance(wanted, type) and issubclass(wanted, BaseModel):
        return ModelState(agent, wanted, versions)
    detail = f"{agent.__qualname__}.state must be a pydantic model or a dict, not {wanted!r}"
    raise refuse("INVALID_CODE", detail, agent=agent.__qualname__)


def _annotation(agent: type) -> Any:
    for each in agent.__mro__:
        given = inspect.get_annotations(each).get("state")
        if given is not None:
            alone = type("State", (), {"__annotations__": {"state": given}, "__module__": each.__module__})
            try:
                return typing.get_type_hints(alone)["state"]
            except (NameError, AttributeError, TypeError) as error:
                detail = f"the annotation of {agent.__qualname__}.state can not be resolved: {error}"
                raise refuse("INVALID_CODE", detail, agent=agent.__qualname__, error=str(error)) from error
    return Any


class ModelState:
    """State as a pydantic model."""

    def __init__(self, agent: type, model: type[BaseModel], versions: Versions) -> None:
        self._agent = agent.__qualname__
        self._model = model
        self._versions = versions
        self.version = versions.current
        try:
            model()
        except ValidationError as error:
            detail = (
                f"{model.__qualname__}, the state of {self._agent}, needs a default for every field: {_first(error)}"
            )
            raise refuse("INVALID_CODE", detail, agent=self._agent, state=model.__qualname__) from error

    def load(self, state: bytes, version: int | None = None) -> BaseModel:
        """The model; a new one when nothing is stored."""
        if not state:
            return self._model()
        state = self._versions.bring(state, version)
        try:
            return self._model.model_validate_json(state)
        except ValidationError as error:
            detail = f"the stored state does not fit {self._model.__qualname__}: {_first(error)}"
            raise refuse("INVALID_CODE", detail, agent=self._agent, state=self._model.__qualname__) from error

    def dump(self, state: Any) -> bytes:
        """JSON of the model."""
        if not isinstance(state, self._model):
            raise TypeError(f"self.state must stay a {self._model.__qualname__}, not {type(state).__name__}")
        return state.model_dump_json().encode()


class FreeState:
    """State as a dict of JSON values."""

    def __init__(self, versions: Versions) -> None:
        self._versions = versions
        self.version = versions.current

    def load(self, state: bytes, version: int | None = None) -> dict[str, Any]:
        """The dict; an empty one when nothing is stored."""
        value = orjson.loads(self._versions.bring(state, version)) if state else {}
        if not isinstance(value, dict):
            raise refuse("INVALID_CODE", "the stored state is no object, and the agent names no model for it")
        return value

    def dump(self, state: Any) -> bytes:
        """JSON of the dict."""
        if not isinstance(state, dict):
            raise TypeError(f"self.state must stay a dict, not {type(state).__name__}")
        return orjson.dumps(state)


def _first(error: ValidationError) -> str:
    """The first fault of a validation, without the value that was there."""
    fault = error.errors(include_input=False, include_url=False)[0]
    path = ".".join(str(part) for part in fault["loc"]) or "(root)"
    return f"{path}: {fault['msg']}"
