"""The SDK of agents: `class Echo(Agent)` with async hooks, each given its `Turn`.

An agent is its state and its hooks. The state is a pydantic model (annotate `state: MyState`; every
field needs a default) or, without annotation, a dict; it is saved when the turn ends, and nothing
else of the object lives on. Everything a hook does to the world goes through its turn: buffered
effects (send, publish, request, timer, spawn) happen together when the segment commits; `perform`
happens at once, once; `ask` and `sleep` park the turn, for a minute or a month. Time, randomness and
ids come from the turn too, so that a handler can be run again and do the same.
"""

import inspect
from collections.abc import Sequence
from datetime import UTC, datetime
from random import Random
from typing import Any
from uuid import UUID

import orjson

from ray_runtime.arguments import (
    Json,
    agent_address,
    channel_address,
    json_bytes,
    least_answers,
    order_key,
    seconds,
    spawn_bytes,
)
from ray_runtime.awaits import Done, EffectPromise, Promise
from ray_runtime.gathering import Gathering, Replies, all_of, each_of, replies
from ray_runtime.journal import BRANCH, Journal
from ray_runtime.problems import refuse
from ray_runtime.timing import own_name, timer_bytes
from schemas.base import short_id
from schemas.envelope import Envelope

HOOKS = ("on_start", "on_message", "on_reply", "on_timer", "on_batch")
DEADLINE_S = 86_400


class Turn:
    """The handling of one message: the only way from a handler to the world."""

    def __init__(self, journal: Journal, *, turn_id: str, namespace: str, name: str) -> None:
        self.turn_id = turn_id
        self._journal = journal
        self._namespace = namespace
        self._name = name
        self._rng: Random | None = None
        self._uuids = 0

    # Buffered: they happen when the segment commits

    def send(self, to: str, data: Json = None, key: str | None = None) -> Done:
        """A message for an agent's inbox. Answers the message id."""
        body = {"to": agent_address(to, self._namespace), "data": data, "key": order_key("send", key)}
        return self._message("send", body)

    def publish(self, channel: str, data: Json = None, key: str | None = None) -> Done:
        """A message for a channel; one key keeps its order. Answers the message id."""
        address = channel_address(channel, self._namespace)
        return self._message("publish", {"channel": address, "data": data, "key": order_key("publish", key)})

    def request(self, to: str, data: Json = None, deadline_s: float = DEADLINE_S) -> Done:
        """A question that does not park: its answer comes to `on_reply`, with this id as `causationid`."""
        return self._message("request", self._question(to, data, deadline_s))

    def timer(
        self,
        name: str,
        after_s: float | None = None,
        every_s: float | None = None,
        data: Json = None,
        *,
        cron: str | None = None,
        zone: str | None = None,
        missed: str | None = None,
        cancel: bool = False,
    ) -> Done:
        """Set (or set anew) the agent's timer of this name; it comes to `on_timer`. Answers the name.

        Once (`after_s`), again and again (`every_s`), or by a `cron` expression in a `zone` (UTC by default).
        Of times that were `missed`, `fire_once` (the default) tells the last, `skip` none, `all` each of the
        newest hundred; `timer.missed` counts the others, and `timer.scheduledat` is the time it stands for.
        """
        if cancel:
            return self.cancel_timer(name)
        body = timer_bytes(name, after_s, every_s, data, cron=cron, zone=zone, missed=missed)
        self._journal.record("timer", body)
        return Done(name)

    def cancel_timer(self, name: str) -> Done:
        """End the timer of this name, if there is one. Answers the name."""
        self._journal.record("timer_cancel", json_bytes("timer_cancel", {"name": own_name(name)}))
        return Done(name)

    def spawn(
        self,
        name: str,
        entrypoint: str | None = None,
        config: dict[str, Any] | None = None,
        purpose: str | None = None,
        grants: list[dict[str, Any]] | None = None,
    ) -> Done:
        """A new agent of this code, in this namespace, owned by this one; what is left out is as here.

        Answers its address, `namespace/name`.
        """
        address = agent_address(name, self._namespace)
        namespace, _, child = address.partition("/")
        if namespace != self._namespace:
            raise refuse("INVALID_VALUE", f"spawn: {address} is outside {self._namespace}", field="/name", name=name)
        body = spawn_bytes(name=child, entrypoint=entrypoint, config=config, purpose=purpose, grants=grants)
        self._journal.record("spawn", body)
        return Done(address)

    # Promises: they end the step

    def ask(self, to: str, data: Json = None, deadline_s: float = DEADLINE_S) -> Promise[Envelope]:
        """A question that parks the turn until its answer. Raises Refusal when it fails or time runs out."""
        body = json_bytes("ask", self._question(to, data, deadline_s))
        return Promise(self._journal, "ask", body, Envelope.model_validate_json, f"turn.ask({to!r})")

    def sleep(self, seconds_: float, /) -> Promise[None]:
        """Park the turn for so long."""
        body = json_bytes("sleep", {"seconds": seconds("sleep", seconds_)})
        return Promise(self._journal, "sleep", body, lambda _: None, "turn.sleep()")

    def gather(self, *promises: Promise[Any], return_exceptions: bool = False) -> Promise[list[Any]]:
        """Wait for several asks and sleeps at once; answers their results in the order given.

        Parks once, until the last of them has come. If some failed, raises the Refusal that came first, or
        answers each Refusal in its place.
        """
        of = each_of if return_exceptions else all_of
        return Gathering(self._journal, promises, len(promises), of, "turn.gather()")

    def ask_all(
        self,
        to: Sequence[str],
        data: Json = None,
        deadline_s: float = DEADLINE_S,
        *,
        quorum: int | None = None,
        first: bool = False,
    ) -> Promise[Replies]:
        """One question for several agents: waits for all, for `quorum` answers, or for the first.

        Answers what came, in the order in which it came, with who failed and why. When enough have answered,
        the others' answers are not waited for any more; one that comes later is told as late.
        """
        addresses = [agent_address(it, self._namespace) for it in to]
        needs = least_answers(len(addresses), quorum, first=first)
        asks = [self.ask(it, data, deadline_s) for it in addresses]
        return Gathering(self._journal, asks, needs, replies(addresses), "turn.ask_all()")

    def perform(
        self, effect: str, /, *, connection: str | None = None, purpose: str = "", **arguments: Json
    ) -> Promise[Any]:
        """An external effect; answers its result. Raises Refusal when it was denied or failed."""
        if not isinstance(effect, str) or not effect:
            raise refuse("INVALID_VALUE", "perform: the effect is named by a string", field="/effect")
        body = {"effect": effect, "connection": connection, "arguments": arguments, "purpose": purpose}
        promise = EffectPromise(
            self._journal, "effect", json_bytes("perform", body), orjson.loads, f"turn.perform({effect!r})"
        )
        promise.effect, promise.connection, promise.purpose = effect, connection or "", purpose
        promise.arguments = json_bytes("perform", arguments)
        return promise

    # Plain values that a replay makes again

    def now(self) -> datetime:
        """The time of the turn's last recorded event, in UTC: it moves at awaits only."""
        return datetime.fromtimestamp(self._journal.now, UTC)

    def random(self) -> float:
        """From 0 up to 1, the same in every replay."""
        return self.rng.random()

    @property
    def rng(self) -> Random:
        """A generator seeded by the turn."""
        if self._rng is None:
            self._rng = Random(self.turn_id)  # noqa: S311 - reproducible on purpose
        return self._rng

    def uuid(self) -> str:
        """A version 4 UUID, the same in every replay."""
        seed = Random(f"{self.turn_id}:uuid:{self._uuids}")  # noqa: S311 - reproducible on purpose
        self._uuids += 1
        return str(UUID(int=seed.getrandbits(128), version=4))

    def _question(self, to: str, data: Json, deadline_s: float) -> dict[str, Any]:
        until = seconds("deadline_s", deadline_s)
        return {"to": agent_address(to, self._namespace), "data": data, "deadline_s": until}

    def _message(self, kind: str, body: dict[str, Any]) -> Done:
        position = self._journal.record(kind, json_bytes(kind, body))
        return Done(short_id("msg", self.turn_id, BRANCH, position))


class Agent:
    """The base of agents. Override the hooks you need; they are `async def`."""

    state: Any
    config: dict[str, Any]
    namespace: str
    name: str

    async def on_start(self, turn: Turn) -> None:
        """Runs once, before anything else, in the agent's first turn."""

    async def on_message(self, turn: Turn, envelope: Envelope) -> Any:
        """Handles a message; what it returns answers whoever asked."""

    async def on_reply(self, turn: Turn, reply: Envelope) -> None:
        """Handles the answer to a `turn.request`; `reply.causationid` is the request's id."""

    async def on_timer(self, turn: Turn, timer: Envelope) -> None:
        """Handles a timer; `timer.subject` is its name, `timer.type` `steward.watch` if it is one of the spec's."""

    async def on_batch(self, turn: Turn, envelopes: list[Envelope]) -> None:
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
