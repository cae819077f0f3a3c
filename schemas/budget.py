"""Budget: how much of what may be used within a window, by whom, and what happens before it would be more."""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from schemas.base import ClosedKeys, Frozen, Labels, Name, Output
from schemas.resource import API_VERSION, Condition, ManifestMetadata, Metadata

LIMITS_MAX = 16
AMOUNT_MAX = 1_000_000_000_000
MONEY = "money"
CURRENCY_PATTERN = r"^[A-Z]{3}$"
METER_PATTERN = r"^[a-z][a-z0-9_]{0,62}$"
Meter = Annotated[str, StringConstraints(pattern=METER_PATTERN)]
Most = Annotated[float, Field(ge=0, le=AMOUNT_MAX, allow_inf_nan=False)]
WindowKind = Literal["hour", "day", "month", "total"]
Action = Literal["hold", "pause", "deny"]


class BudgetScope(Frozen):
    """Whose use counts: of the budget's namespace, those whom each of these names; all of it, where none does."""

    agent: Name | None = None
    fleet: Name | None = None
    labels: Labels = Field(default_factory=dict)


class BudgetSpec(Frozen):
    """What may be used. `money` is by the rate card of the installation, and in its currency."""

    scope: BudgetScope = Field(default_factory=BudgetScope)
    window: WindowKind = Field(default="month", description="In UTC; `total` is as long as usage is kept.")
    limits: Annotated[dict[Meter, Most], Field(min_length=1, max_length=LIMITS_MAX), ClosedKeys()] = Field(
        description="The most of each meter, as in `tokens_out`, `effects`, `active_s`, `turns`; or of `money`."
    )
    currency: Annotated[str, StringConstraints(pattern=CURRENCY_PATTERN)] | None = Field(
        default=None,
        description="What `money` is in (ISO 4217): the installation's currency, which it also is when absent. "
        "Nothing converts, so another one is refused.",
    )
    action: Action = Field(
        default="hold",
        description="An effect that could pass a limit is held for an operator, is refused, or its agent waits for the "
        "next window. A turn that could pass one always waits.",
    )


class BudgetManifest(Frozen):
    """A budget as a writer declares it."""

    api_version: Literal["steward/v1"] = API_VERSION
    kind: Literal["Budget"]
    metadata: ManifestMetadata
    spec: BudgetSpec
    status: dict[str, Any] | None = Field(default=None, description="Ignored in input.")


class BudgetStatus(Output):
    """What is observed of a budget; condition `Ready`. What was used of it, `usage.report` says."""

    conditions: list[Condition]


class Budget(Output):
    """A budget as it is answered."""

    api_version: Literal["steward/v1"] = API_VERSION
    kind: Literal["Budget"] = "Budget"
    metadata: Metadata
    spec: BudgetSpec
    status: BudgetStatus
