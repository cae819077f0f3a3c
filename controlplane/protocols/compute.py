"""`compute.run`: a function of the agent's own code, run by Ray. The gate waits for it, and sends nothing itself."""

from math import inf
from typing import Any

from pydantic import BaseModel

from controlplane.resources.problems import refuse
from schemas.compute import COMPUTE, ComputeAsked, ComputeRun
from schemas.endpoint import ConnectionSpec
from schemas.ports import EffectCall
from schemas.protocols import Declaration


class ComputeEffector:
    """What is asked of Ray, and for how long it is waited for."""

    name = COMPUTE
    protocol: str | None = None
    timeout_s = 0.0
    reads_only = True
    arguments: type[BaseModel] = ComputeAsked

    def repeats_for_s(self, arguments: BaseModel, spec: ConnectionSpec | None) -> float:
        return inf

    async def ready(self) -> None:
        """It is, once it is made."""

    def lasts_s(self, arguments: BaseModel) -> float:
        return ComputeRun.model_validate(arguments, from_attributes=True).deadline_s

    def most(self, arguments: BaseModel, spec: ConnectionSpec | None) -> dict[str, float]:
        """All that it asks Ray for, until its deadline, whatever its attempts; on one CPU at least."""
        given = ComputeRun.model_validate(arguments, from_attributes=True)
        needs, lasts_s = given.resources, given.deadline_s
        return {"task_s": lasts_s, "gpu_s": lasts_s * needs.num_gpus, "cpu_s": lasts_s * max(1.0, needs.num_cpus)}

    def target(self, arguments: BaseModel) -> str:
        return f"{COMPUTE} of {ComputeRun.model_validate(arguments, from_attributes=True).function}"

    async def execute(self, arguments: BaseModel, call: EffectCall) -> Any:
        """It is waited for as an await is, never sent."""
        raise refuse("INVALID_VALUE", f"{COMPUTE} is run by Ray", field="/effect", effect=COMPUTE)


PROTOCOL = Declaration("compute", lambda _: (ComputeEffector(),), connects=False)
