"""What can be done over a connection: its effects, with what they take and what is promised of them."""

from typing import Any, Literal

from pydantic import Field

from schemas.agent import Grant
from schemas.base import Frozen, Name, Output
from schemas.calls import Limit, Page
from schemas.offers import RoleMap

Magnitude = Literal["none", "counted", "unknown"]
Repeats = Literal["always", "for_a_time", "by_method", "never"]


class EffectsInput(Frozen):
    """The effects of one connection, by name."""

    namespace: Name = "default"
    name: Name
    limit: Limit = 100
    page: Page | None = None


class OfferedEffect(Output):
    """An effect, as `turn.perform` does it over this connection."""

    effect: str
    description: str
    arguments: dict[str, Any] = Field(description="The JSON Schema that they meet.")
    roles: RoleMap = Field(description="What each argument is for, to the guard.")
    grant: Grant = Field(description="What a mandate grants, so that an agent may do it.")
    fault: str | None = Field(description="Why it can not be done now, if it can not.")
    reads_only: bool = Field(description="It changes nothing anywhere: what breaks has failed, and is in no doubt.")
    magnitude: Magnitude = Field(
        description="What is known beforehand of how much it touches: `none` is touched by what only reads; `counted` "
        "is judged before it is sent, and not passed; of what is `unknown` only the grant decides."
    )
    repeats: Repeats = Field(
        description="Whether it may be sent again under its key when nobody knows what came of it: `for_a_time` is for "
        "`repeats_for_s`, `by_method` is for `repeating_methods` always, and for others as `repeats_for_s` says."
    )
    repeats_for_s: float | None = Field(description="Null where that is for ever, or never.")
    repeating_methods: list[str]


class EffectList(Output):
    """The effects that are known of a connection, by name."""

    items: list[OfferedEffect]
    next_page: str | None = None
    unlisted: list[str] = Field(description="Families of effects that only the far side knows, as `finger.*`.")
