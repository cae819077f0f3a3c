"""What the plane knows of filters, transforms and effects, for routes: the code of their workers, and the registry."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from controlplane.mesh.dataschema import data_fault
from controlplane.protocols.finding import performer_of
from controlplane.protocols.registry import Registry
from ray_runtime.route import expressions
from schemas.connection import connection_spec
from schemas.ports import EffectKnown
from schemas.protocols import Performer


class Routing:
    """The port `Routing`."""

    filter_fault = staticmethod(expressions.filter_fault)
    transform_fault = staticmethod(expressions.transform_fault)
    passes = staticmethod(expressions.passes)
    transformed = staticmethod(expressions.transformed)
    fields_read = staticmethod(expressions.fields_read)

    def __init__(self, registry: Registry) -> None:
        self._performers: Mapping[str, Performer] = registry.performers(data_fault)

    def accept_fault(self, text: str) -> str | None:
        return expressions.filter_fault(text, expressions.OVER_RESULT)

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
