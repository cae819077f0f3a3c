"""What the plane knows of filters, transforms and effects, for routes: the code of their workers, and the registry."""

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from pydantic import BaseModel, ValidationError

from controlplane.mesh.dataschema import data_fault
from controlplane.protocols.finding import performer_of
from controlplane.protocols.registry import Registry
from ray_runtime.route import expressions
from schemas.connection import connection_spec
from schemas.ports import EffectKnown, Tried
from schemas.protocols import Performer

TRYING = "ray_runtime.route.trying"
AT_ONCE_MAX = 2
TRY_S_MAX = 30.0  # of a machine that has other things to do: CPU time is bounded by the process itself
TOLD_BYTES_MAX = 32 * 1_048_576
TOO_MUCH = "the expressions take more time or memory for the samples than there is"


class Routing:
    """The port `Routing`."""

    filter_fault = staticmethod(expressions.filter_fault)
    transform_fault = staticmethod(expressions.transform_fault)
    fields_read = staticmethod(expressions.fields_read)

    def __init__(self, registry: Registry) -> None:
        self._at_once = asyncio.Semaphore(AT_ONCE_MAX)
        self._performers: Mapping[str, Performer] = registry.performers(data_fault)

    def accept_fault(self, text: str) -> str | None:
        return expressions.filter_fault(text, expressions.OVER_RESULT)

    async def tried(
        self, filter_: str | None, transform: str | None, samples: Sequence[Any], envelope: Mapping[str, Any]
    ) -> list[Tried]:
        """What becomes of samples, as a process of its own says; one that ends without an answer says no."""
        asked = {"filter": filter_, "transform": transform, "samples": list(samples), "envelope": dict(envelope)}
        async with self._at_once:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", TRYING, stdin=PIPE, stdout=PIPE, stderr=DEVNULL
            )
            try:
                async with asyncio.timeout(TRY_S_MAX):
                    told, _ = await process.communicate(orjson.dumps(asked))
            except TimeoutError:
                told = b""
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        if process.returncode != 0 or len(told) > TOLD_BYTES_MAX:
            return [Tried(passed=False, made=None, unfit=TOO_MUCH)] * len(samples)
        return [Tried(*it) for it in orjson.loads(told)]

    def effect(self, name: str) -> EffectKnown | None:
        """An effect by its name; of one that only a connection knows, no more than its protocol."""
        performer = performer_of(name, self._performers)
        if performer is None:
            return None
        arguments = getattr(performer, "arguments", None)
        if arguments is None:
            return EffectKnown(performer.protocol, None, lambda _: None)
        model: type[BaseModel] | None = arguments if isinstance(arguments, type) else None
        schema = model.model_json_schema() if model is not None else dict(arguments)
        return EffectKnown(performer.protocol, schema, lambda spec: _repeats(performer, arguments, spec))


def _repeats(performer: Any, arguments: Any, spec: dict[str, Any] | None) -> bool | None:
    """Whether an effect of these arguments may be sent again, as its effector says."""
    if performer.reads_only:
        return True
    given = arguments.model_construct() if isinstance(arguments, type) and issubclass(arguments, BaseModel) else None
    if given is None or (spec is None and performer.protocol is not None):
        return None
    try:
        return bool(performer.repeats_for_s(given, connection_spec(spec) if spec is not None else None) > 0)
    except (ValidationError, AttributeError):
        return None
