"""A replay: a route reads its source again, under which keys, and how far that is."""

from typing import Literal

from pydantic import Field

from schemas.base import Output, Time

Keys = Literal["same", "new"]
REPLAY = "steward.replay"  # the type of the message that tells a poll's worker


class Gap(Output):
    """Positions of a channel that retention took: what stood there is not read again."""

    first: str
    last: str


class Replay(Output):
    """How far it is that a route reads its source again."""

    replay_id: str
    keys: Keys
    state: Literal["running", "done", "cancelled"] = Field(
        description="`done`: what was asked for was read, and is in the worker's inbox or behind it."
    )
    asked_at: Time
    principal: str
    total: int | None = Field(description="What there is to read again; null: it is not known before.")
    left: int | None = Field(description="How much of that is not read yet.")
    gap: Gap | None = Field(default=None, description="What retention took before it could be read again.")
    change_id: str | None = None
