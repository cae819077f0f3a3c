"""Chain: a message, and all the work because of it. What it may use, who wanted what, and what was used."""

from typing import Annotated

from pydantic import Field

from schemas.base import ClosedKeys, Output, Text, Time
from schemas.budget import LIMITS_MAX, Meter, Most

INTENT_CHARS_MAX = 2000
DEPTH_MAX = 32  # budgets within each other
Allowance = Annotated[
    dict[Meter, Most],
    Field(
        min_length=1,
        max_length=LIMITS_MAX,
        description="The most of each meter, as in `money`, `tokens_out`, `active_s`, `effects`, that all the work "
        "because of this message may use. Within another one's budget it can only be narrower.",
    ),
    ClosedKeys(),
]
IntentText = Annotated[Text, Field(min_length=1, max_length=INTENT_CHARS_MAX)]


class ChainView(Output):
    """What a chain may use, with all that is below it, and what it has used."""

    chain_id: str = Field(description="The id of the message that it begins with; `usage.report` takes it.")
    parent: str | None = Field(description="The chain that it lies within.")
    opened_by: str = Field(description="The agent or the principal who sent that message.")
    on_behalf_of: str | None = Field(description="The principal whose call it all began with.")
    intent: str | None = Field(description="What that principal said that it is for.")
    limits: dict[str, float]
    used: dict[str, float]
    money: Text = Field(description="What that cost, in the installation's currency, as text.")
    at: Time
