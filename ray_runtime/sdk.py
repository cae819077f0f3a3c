"""The SDK of agents: `class Echo(Agent)` with async hooks, each given its `Turn`.

An agent is its state and its hooks. The state is a pydantic model (annotate `state: MyState`; every
field needs a default) or, without annotation, a dict; it is saved when the turn ends, and nothing
else of the object lives on. Where its shape changes, `state_version` goes up by one, and a function
marked `migration` leads there from the version before. Everything a hook does to the world goes
through its turn: buffered effects (send, publish, join, leave, request, timer, spawn, conclude) happen together
when the segment commits; `perform` happens at once, once; `ask` and `sleep` park the turn, for a minute or a
month. Time, randomness and ids come from the turn too, so that a handler can be run again and do the
same. A message may carry a `budget`, as `{"money": 0.5, "tokens_out": 2000, "active_s": 30}`: the most that
all the work because of it may use, within what is left of this turn's own; beyond it work fails with
BUDGET_EXCEEDED, and an `ask` raises that.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import orjson

from ray_runtime.arguments import (
    Json,
    agent_address,
    allowance,
    channel_address,
    compute_bytes,
    envelopes,
    first_read,
    json_bytes,
    least_answers,
    posting,
    question_bytes,
    received,
    seconds,
    spawn_bytes,
    urgency,
)
from ray_runtime.awaits import Done, EffectPromise, Promise
from ray_runtime.branching import Branching
from ray_runtime.concluding import conclusion_bytes
from ray_runtime.finding import find_bytes, found_agents
from ray_runtime.gathering import MEMBERS, Gathering, Replies, all_of, each_of, replies
from ray_runtime.hooks import HOOKS as HOOKS
from ray_runtime.hooks import Agent as Agent
from ray_runtime.journal import Journal
from ray_runtime.problems import refuse
from ray_runtime.timing import own_name, timer_bytes
from schemas.base import short_id
from schemas.branches import ROOT
from schemas.compute import COMPUTE
from schemas.conclusion import place_reference
from schemas.discovery import FIND, FoundAgent
from schemas.envelope import Envelope

DEADLINE_S = 86_400


class Turn:
    """The handling of one message: the only way from a handler to the world."""

    def __init__(
        self,
        journal: Journal,
        *,
        turn_id: str,
        namespace: str,
        name: str,
        trigger: str,
        workspace: Path | None = None,
    ) -> None:
        self.turn_id = turn_id
        self._journal = journal
        self._namespace = namespace
        self._name = name
        self._trigger = trigger
        self._workspace = workspace
        self._rng: Random | None = None
        self._uuids = 0

    @property
    def workspace(self) -> Path:
        """The agent's own folder: what is in it when the turn ends is there again at the next turn, anywhere.

        Raises INVALID_VALUE when the spec of the agent has no `workspace`.
        """
        if self._workspace is None:
            raise refuse("INVALID_VALUE", "the agent has no workspace: its spec names none", field="/spec/workspace")
        return self._workspace

    # Buffered: they happen when the segment commits

    def send(
        self, to: str, data: Json = None, key: str | None = None, *, priority: int = 0, delay_s: float = 0.0,
        ttl_s: float | None = None, budget: dict[str, float] | None = None, received_over: str | None = None,
    ) -> Done:  # fmt: skip
        """A message for an agent's inbox; one key keeps its order, and the highest `priority` (0 to 9) goes first.

        It takes its place after `delay_s`, and is given up `ttl_s` seconds later unless a turn has begun with it. Data
        that was `received_over` a connection is labelled by the connection's trust. Answers the message id."""
        how = posting("send", key, priority, delay_s, ttl_s) | received("send", received_over)
        body = {"to": agent_address(to, self._namespace), "data": data, **how}
        return self._message("send", {**body, **allowance("send", budget)})

    def publish(
        self, channel: str, data: Json = None, key: str | None = None, *, priority: int = 0, delay_s: float = 0.0,
        ttl_s: float | None = None, received_over: str | None = None,
    ) -> Done:  # fmt: skip
        """A message for a channel, which is made if it is not there; the rest as of `send`. Answers the message id."""
        how = posting("publish", key, priority, delay_s, ttl_s) | received("publish", received_over)
        return self._message("publish", {"channel": channel_address(channel, self._namespace), "data": data, **how})

    def join(self, channel: str, start: str = "now", after: str | None = None) -> Done:
        """Read a channel, which is made if it is not there, from `now`, its `beginning`, or behind a cursor.

        Who is a member already stays where it is. Answers the address."""
        address = channel_address(channel, self._namespace)
        self._journal.record("join", json_bytes("join", {"channel": address, **first_read(start, after)}))
        return Done(address)

    def leave(self, channel: str) -> Done:
        """Read a channel no more; one that the agent's spec watches is OWNED by that. Answers the address."""
        address = channel_address(channel, self._namespace)
        self._journal.record("leave", json_bytes("leave", {"channel": address}))
        return Done(address)

    def request(
        self, to: str, data: Json = None, deadline_s: float = DEADLINE_S, *, priority: int = 0,
        ttl_s: float | None = None, budget: dict[str, float] | None = None,
    ) -> Done:  # fmt: skip
        """A question that does not park: its answer comes to `on_reply`, with this id as `causationid`.

        `priority` and `ttl_s` are as of `ask`."""
        body = self._question("request", to, data, deadline_s, priority, ttl_s)
        return self._message("request", {**body, **allowance("request", budget)})

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
        *,
        budget: dict[str, float] | None = None,
        scope: str | None = None,
    ) -> Done:
        """A new agent of this code, in this namespace, owned by this one; what is left out is as here.

        Answers its address, `namespace/name`. A `budget` is for life: for all that it does by itself. With `scope` it
        ends with this `turn`, or with this `agent`, and all that it spawned ends with it; without, it stays, unless
        this agent lives in a scope itself.
        """
        address = agent_address(name, self._namespace)
        namespace, _, child = address.partition("/")
        if namespace != self._namespace:
            raise refuse("INVALID_VALUE", f"spawn: {address} is outside {self._namespace}", field="/name", name=name)
        body = spawn_bytes(
            name=child, entrypoint=entrypoint, config=config, purpose=purpose, grants=grants, budget=budget, scope=scope
        )
        self._journal.record("spawn", body)
        return Done(address)

    def conclude(
        self,
        text: str,
        because: Sequence[Any] = (),
        alternatives: Sequence[str] = (),
        confidence: float | None = None,
        *,
        seen: Sequence[Any] = (),
    ) -> Done:
        """Say what the turn came to, and because of what; it stands in its journal, and nothing acts on it.

        `because` cites, `seen` was merely there: envelopes, ids of messages, what `perform` or `ask` answers (after it
        was awaited), a result as it came (an object or a list), earlier conclusions. `confidence` is from 0 to 1.
        Answers its reference.
        """
        said: dict[str, Any] = {"text": text, "alternatives": alternatives, "confidence": confidence}
        body = conclusion_bytes(self._journal, self.turn_id, {**said, "because": because, "seen": seen})
        return Done(place_reference(self.turn_id, self._journal.branch, self._journal.record("conclude", body)))

    def continue_as(self, data: Json = None) -> None:
        """End this turn, and start the next in its place: the same hook with this data, before any later message.

        State and effects of this turn are committed together with that. The last thing of a handler, which
        returns nothing then: whoever asked is answered by the last turn. A batch goes on with envelopes.
        """
        if self._trigger == "start":
            detail = "continue_as: on_start has no message to go on with; send one, or set a timer"
            raise refuse("INVALID_VALUE", detail, hook="on_start")
        if self._journal.branch != ROOT:
            detail = "continue_as: it ends the turn, and a branch of turn.gather is a part of one"
            raise refuse("INVALID_VALUE", detail, branch=self._journal.branch)
        if self._trigger == "batch":
            data = envelopes("continue_as", data)
        self._journal.record("continue", json_bytes("continue_as", {"data": data}))
        self._journal.over = True

    # Promises: they end the step

    def ask(
        self, to: str, data: Json = None, deadline_s: float = DEADLINE_S, *, priority: int = 0,
        ttl_s: float | None = None, budget: dict[str, float] | None = None,
    ) -> Promise[Envelope]:  # fmt: skip
        """A question that parks the turn until its answer. Raises Refusal when it fails or time runs out.

        The highest `priority` (0 to 9) goes first; when no turn has begun with it after `ttl_s`, it fails as EXPIRED.
        """
        question = self._question("ask", to, data, deadline_s, priority, ttl_s)
        body = json_bytes("ask", {**question, **allowance("ask", budget)})
        return Promise(self._journal, "ask", body, Envelope.model_validate_json, f"turn.ask({to!r})")

    def ask_human(
        self,
        question: str,
        choices: Sequence[str] | None = None,
        *,
        deadline_s: float = DEADLINE_S,
        forever: bool = False,
    ) -> Promise[Any]:
        """A question to a person that parks the turn until `questions.answer`; answers what was answered.

        With `choices` the answer is one of them, else any JSON. Raises Refusal when time runs out, which
        `forever` never does.
        """
        body = question_bytes(question, choices, None if forever else deadline_s)
        return Promise(self._journal, "question", body, orjson.loads, "turn.ask_human()")

    def sleep(self, seconds_: float, /) -> Promise[None]:
        """Park the turn for so long."""
        body = json_bytes("sleep", {"seconds": seconds("sleep", seconds_)})
        return Promise(self._journal, "sleep", body, lambda _: None, "turn.sleep()")

    def gather(self, *members: Awaitable[Any], return_exceptions: bool = False) -> Promise[list[Any]]:
        """Wait for several at once: effects, coroutines of this handler, asks, sleeps, other gatherings.

        Answers their results in the order given, when the last of them has ended; a failure of one ends no
        other. Then the failure that came first is raised, or each stands in its place. Coroutines are
        branches: they take turns at what they wait for, and never run at the same moment.
        """
        if all(isinstance(it, Promise) and it.kind in MEMBERS for it in members):
            of = each_of if return_exceptions else all_of
            awaits = [it for it in members if isinstance(it, Promise)]
            return Gathering(self._journal, awaits, len(awaits), of, "turn.gather()")
        return Branching(self._journal, members, every=return_exceptions)

    def ask_all(
        self,
        to: Sequence[str],
        data: Json = None,
        deadline_s: float = DEADLINE_S,
        *,
        quorum: int | None = None,
        first: bool = False,
        priority: int = 0,
        ttl_s: float | None = None,
        budget: dict[str, float] | None = None,
    ) -> Promise[Replies]:
        """One question for several agents: waits for all, for `quorum` answers, or for the first.

        Answers what came, in the order in which it came, with who failed and why. When enough have answered,
        the others' answers are not waited for any more; one that comes later is told as late. A `budget` is
        that of each.
        """
        addresses = [agent_address(it, self._namespace) for it in to]
        needs = least_answers(len(addresses), quorum, first=first)
        asks = [self.ask(it, data, deadline_s, priority=priority, ttl_s=ttl_s, budget=budget) for it in addresses]
        return Gathering(self._journal, asks, needs, replies(addresses), "turn.ask_all()")

    def perform(
        self, effect: str, /, *, connection: str | None = None, purpose: str = "", **arguments: Json
    ) -> Promise[Any]:
        """An external effect; answers its result. Raises Refusal when it was denied or failed."""
        if not isinstance(effect, str) or not effect:
            raise refuse("INVALID_VALUE", "perform: the effect is named by a string", field="/effect")
        given = json_bytes("perform", arguments)
        return self._effect(effect, connection, given, purpose, f"turn.perform({effect!r})")

    def compute(
        self,
        function: str,
        /,
        *args: Json,
        resources: dict[str, Any] | None = None,
        retries: int | None = None,
        deadline_s: float | None = None,
        purpose: str = "",
        **kwargs: Json,
    ) -> Promise[Any]:
        """A function of this agent's code (`module:function`), run by Ray; the turn parks until it has ended.

        `resources` are `num_cpus` (1), `num_gpus`, `memory_bytes`, `custom` and `labels`, kept while it runs. When its
        worker dies it begins anew, `retries` times (2) at most; it has `deadline_s` (a day). Arguments and what it
        returns are JSON of 512 KiB at most. Answers what it returned; raises Refusal when it failed or was denied.
        """
        more = {"resources": resources, "retries": retries, "deadline_s": deadline_s}
        given = compute_bytes(function, args, kwargs, **more)
        return self._effect(COMPUTE, None, given, purpose, f"turn.compute({function!r})")

    def find(
        self,
        query: str | None = None,
        *,
        name: str | None = None,
        labels: dict[str, str] | None = None,
        capability: str | None = None,
        meaning: str | None = None,
        limit: int = 20,
    ) -> Promise[list[FoundAgent]]:
        """Agents of this namespace, and of others what is open to it, the best first; all that is given must be so.
        Messages reach them at their `address`. A journaled read: a replay finds the same. Raises Refusal when it can
        not be looked now.

        `meaning` is what is needed, in words; `query` a name, a capability, or such words. `name` may be the beginning
        of one. Who is suspended is found, too, and a message wakes them.
        """
        given = find_bytes(query=query, name=name, labels=labels, capability=capability, meaning=meaning, limit=limit)
        return self._effect(FIND, None, given, "", "turn.find()", found_agents)

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

    def _effect(
        self, effect: str, connection: str | None, given: bytes, purpose: str, said: str,
        read: Callable[[bytes], Any] = orjson.loads,
    ) -> Promise[Any]:  # fmt: skip
        body = {
            "effect": effect, "connection": connection, "arguments": orjson.loads(given), "purpose": purpose
        }  # fmt: skip
        promise = EffectPromise(self._journal, "effect", json_bytes(said, body), read, said)
        promise.effect, promise.connection, promise.purpose = effect, connection or "", purpose
        promise.arguments = given
        return promise

    def _question(
        self, said: str, to: str, data: Json, deadline_s: float, priority: int, ttl_s: float | None
    ) -> dict[str, Any]:
        until, how = seconds("deadline_s", deadline_s), urgency(said, priority, ttl_s)
        return {"to": agent_address(to, self._namespace), "data": data, "deadline_s": until, **how}

    def _message(self, kind: str, body: dict[str, Any]) -> Done:
        position = self._journal.record(kind, json_bytes(kind, body))
        return Done(short_id("msg", self.turn_id, self._journal.branch, position, near=self.turn_id))
