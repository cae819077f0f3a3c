"""`routes.replay`: from which place of its source a route reads again, and under which keys."""

from typing import Annotated

from pydantic import Field

from schemas.base import Output, Text, Time
from schemas.calls import Cursor, NamedAct
from schemas.replay import Keys, Replay

Value = Annotated[Text, Field(max_length=500)] | int | float


class ReplayInput(NamedAct):
    """From where the source is read again: behind a cursor, from a time, from a value of a poll's column; without any
    of them, from its beginning."""

    after: Cursor | None = Field(default=None, description="Of a channel: behind this cursor of `channels.read`.")
    since: Time | None = Field(default=None, description="Of a channel or of events: what came from then on.")
    value: Value | None = Field(default=None, description="Of a poll: from this value of its column `cursor` on.")
    until: Time | None = Field(
        default=None, description="Of a channel or of events: what came before then; else all that came by now."
    )
    keys: Keys | None = Field(
        default=None,
        description="`same` (the default where the source has them: channels): what was passed on keeps its keys, so "
        "that it is not done again, and holes are filled. `new`: all is done once more, as a repeat that is meant.",
    )
    cancel: bool = Field(default=False, description="End the replay that is under way: it goes on where it was.")


class Replayed(Output):
    """What came of a call: the change that it is, and how far that is by now; null where nothing was to be done."""

    namespace: str
    name: str
    change_id: str | None
    replay: Replay | None
