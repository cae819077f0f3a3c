"""Code that does not come to the same when a turn of it is run again."""

from typing import Literal, get_args

from pydantic import Field

from schemas.base import Output, Time
from schemas.problem import Problem

First = Literal["effect", "order", "state", "reply", "raised", "endless"]
ADVICE = (
    "Take time, randomness and ids from the turn (turn.now, turn.random, turn.uuid), read through effects, and keep "
    "nothing outside of self.state; then propose the agent with that code, and send again what failed of it"
)
FIRSTS = frozenset(get_args(First))


class Divergence(Output):
    """What a replay in the background found first, once for each kind: it marks the code in that namespace for good."""

    digest: str = Field(description="The code.")
    first: First = Field(
        description="Another effect, order of answers, state or reply; or the replay raised, or did not end."
    )
    agent: str = Field(description="Whose turn it was, by name.")
    turn_id: str
    at: Time
    problem: Problem = Field(description="REPLAY_DIVERGED: the first difference, both sides, what to do.")
