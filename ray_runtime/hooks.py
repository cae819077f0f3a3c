"""The base of agents: the hooks that a host calls, each with its turn. They are `async def`."""

import inspect
from typing import TYPE_CHECKING, Any

from ray_runtime.problems import refuse
from schemas.envelope import Envelope

if TYPE_CHECKING:
    from ray_runtime.sdk import Turn

HOOKS = ("on_start", "on_message", "on_reply", "on_timer", "on_batch")


class Agent:
    """The base of agents. Override the hooks you need; they are `async def`."""

    state: Any
    state_version: int = 1
    config: dict[str, Any]
    namespace: str
    name: str

    async def on_start(self, turn: "Turn") -> None:
        """Runs once, before anything else, in the agent's first turn."""

    async def on_message(self, turn: "Turn", envelope: Envelope) -> Any:
        """Handles a message; what it returns answers whoever asked."""

    async def on_reply(self, turn: "Turn", reply: Envelope) -> None:
        """Handles the answer to a `turn.request`; `reply.causationid` is the request's id."""

    async def on_timer(self, turn: "Turn", timer: Envelope) -> None:
        """Handles a timer; `timer.subject` is its name, `timer.type` `steward.watch` if it is one of the spec's."""

    async def on_batch(self, turn: "Turn", envelopes: list[Envelope]) -> None:
        """Handles what a watch with `batch_max` brings together: all of it in one turn, or nothing."""
        for envelope in envelopes:
            await self.on_message(turn, envelope)

    def __init_subclass__(cls, **rest: Any) -> None:
        super().__init_subclass__(**rest)
        for hook in HOOKS:
            given = cls.__dict__.get(hook)
            if given is not None and not inspect.iscoroutinefunction(given):
                detail = f"{cls.__qualname__}.{hook} must be async: write `async def {hook}`"
                raise refuse("INVALID_CODE", detail, hook=hook, agent=cls.__qualname__)
