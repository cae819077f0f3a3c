"""`compute.run`: a function of an agent's own code, run by Ray with resources for as long as it takes.

What comes in is a ComputeAsked: nothing that Ray would refuse. What is journaled is read as a ComputeRun.
"""

from typing import Annotated, Any

import orjson
from pydantic import Field, GetJsonSchemaHandler, StringConstraints, model_validator
from pydantic_core import CoreSchema

from schemas import keeping
from schemas.agent import Entrypoint
from schemas.base import ClosedKeys, Frozen
from schemas.isolation import Amount, ResourceName

COMPUTE = "compute.run"
GIVEN_BYTES_MAX = 524_288  # of the arguments, as JSON
RESULT_BYTES_MAX = 524_288  # of what the function answers, as JSON
RETRIES, RETRIES_MAX = 2, 20
DEADLINE_S, DEADLINE_S_MAX = 86_400.0, 10 * 366 * 86_400.0
Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./-]{0,62}$", max_length=63)]


class Needs(Frozen):
    """What Ray keeps for the task while it runs; `labels` are those of a node that may run it."""

    num_cpus: float = Field(default=1, ge=0, le=4096)
    num_gpus: float = Field(default=0, ge=0, le=4096)
    memory_bytes: int = Field(default=0, ge=0, le=2**50)
    custom: Annotated[dict[ResourceName, Amount], Field(max_length=20), ClosedKeys()] = Field(default_factory=dict)
    labels: Annotated[dict[Label, Label], Field(max_length=20), ClosedKeys()] = Field(default_factory=dict)


class Asked(Needs):
    """The same, of a task that is asked for: no more than Ray takes."""

    @model_validator(mode="after")
    def _taken(self) -> "Asked":
        if (found := keeping.unfit(self)) is not None:
            raise ValueError(": ".join(found))
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core)
        keeping.narrow(handler.resolve_ref_schema(schema))
        return schema


class ComputeRun(Frozen):
    """The arguments of `compute.run`. `retries`: how often it may begin anew after its worker died."""

    function: Entrypoint
    args: list[Any] = Field(default_factory=list, max_length=100)
    kwargs: Annotated[dict[str, Any], Field(max_length=100)] = Field(default_factory=dict)
    resources: Needs = Needs()
    retries: int = Field(default=RETRIES, ge=0, le=RETRIES_MAX)
    deadline_s: float = Field(default=DEADLINE_S, gt=0, le=DEADLINE_S_MAX)

    @model_validator(mode="after")
    def _bounded(self) -> "ComputeRun":
        given = len(orjson.dumps([self.args, self.kwargs]))
        if given > GIVEN_BYTES_MAX:
            raise ValueError(f"the arguments have {given} bytes as JSON, and {GIVEN_BYTES_MAX} are the most")
        return self


class ComputeAsked(ComputeRun):
    """The same, as an agent may ask for it now."""

    resources: Asked = Asked()
