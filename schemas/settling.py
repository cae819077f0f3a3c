"""`turns.settle`: what an operator says of an effect in doubt, and the answer."""

from typing import Annotated, Any, Literal

from pydantic import Field

from schemas.base import JSON_INT_MAX, Identifier, Output, Text
from schemas.calls import Imperative

SettleOutcome = Literal["succeeded", "failed", "retry"]


class SettleInput(Imperative):
    """One held effect by its place in its turn's journal, and what came of it."""

    turn_id: Identifier
    branch: Annotated[Text, Field(max_length=100)] = "0"
    position: int = Field(ge=0, le=JSON_INT_MAX)
    outcome: SettleOutcome
    result: Any = Field(default=None, description="With `succeeded`: what the effect answered.")
    reason: Annotated[Text, Field(min_length=1, max_length=1000)]


class Settled(Output):
    """A held effect, after an operator said what came of it."""

    turn_id: str
    branch: str
    position: int
    effect: str
    connection: str | None
    outcome: SettleOutcome
