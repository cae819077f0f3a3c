"""The worker of a route: what its source brings is filtered, transformed, and given to its sink, one by one.

A message is one turn, so that what it becomes commits with its consumption. Each new row of a polled database is a
message of the worker to itself, and the cursor is its state: both commit together. What can not be judged or
transformed, and what a sink takes at no attempt, raises: attempts, delay and dead letters are those of every agent.
A poll that fails has lost nothing, because its cursor stays: it is told when that begins and when it is over, and asked
again at its next time.
"""

from typing import Any

from ray_runtime.arguments import Json
from ray_runtime.polled import tell_failed, tell_recovered
from ray_runtime.problems import refuse
from ray_runtime.sdk import Agent, Turn
from schemas.base import short_id
from schemas.envelope import Envelope
from schemas.problem import Refusal
from schemas.replay import REPLAY
from schemas.route import ChannelSink, EffectSink, EventsSource, Poll, PollSource, RouteSpec

from .evaluating import EVALUATOR
from .expressions import Unfit
from .polling import ROWS_AT_ONCE, Progress, failing, rows_of

WAIT_FIRST_S, WAIT_MOST_S = 1.0, 60.0
MORE = "more"
MORE_WITHIN_S = 3600.0  # then it is read at its time again, whatever became of the rows before
FEEDBACK, GAP = "steward.feedback", "steward.gap"
OURS = ("connection", "purpose")  # the turn's own words
AGAIN = ("EFFECT_FAILED", "BACKLOG_FULL", "MORE_THAN_JUDGED")


class RouteAgent(Agent):
    """Does one route."""

    state: Progress

    async def on_message(self, turn: Turn, envelope: Envelope) -> None:
        route = self._route()
        if envelope.type == REPLAY and isinstance(route.source, PollSource):
            await self._set_back(turn, route.source.poll, envelope.data)
            return
        if envelope.type == GAP:  # it stands for what nobody has any more; the log tells it
            return
        if not _of_source(route, envelope, self.config["worker"]):
            detail = "a route takes what its source brings, and nothing else"
            raise refuse("INVALID_VALUE", detail, source=envelope.source, subject=envelope.subject)
        if isinstance(route.source, PollSource) and envelope.data == MORE:  # a row is an object
            await self._more(turn, route.source.poll)
            return
        about = envelope.model_dump(mode="json", exclude={"data"}, exclude_none=True)
        self.state.last_at = turn.now().timestamp()
        passed, made = _made(route, envelope.data, about)
        if passed:
            self.state.retried += await _pass(turn, route, made, about.get("partitionkey"))
            self.state.passed += 1
        else:
            self.state.filtered += 1

    async def on_reply(self, turn: Turn, reply: Envelope) -> None:
        """It makes no requests that are answered here."""

    async def on_timer(self, turn: Turn, timer: Envelope) -> None:
        route = self._route()
        if not isinstance(route.source, PollSource):
            return
        if turn.now().timestamp() >= self.state.more_until:
            await self._poll(turn, route.source.poll)

    async def _set_back(self, turn: Turn, poll: Poll, asked: dict[str, Any]) -> None:
        """It reads from a value on again, or goes on where it was."""
        self.state.begin(_origin(poll), poll)
        if "value" in asked:
            self.state.set_back(asked["value"])
        else:
            self.state.goes_on()
        await self._poll(turn, poll)

    async def _more(self, turn: Turn, poll: Poll) -> None:
        """What was read before is done with: read on."""
        self.state.more_until = 0.0
        await self._poll(turn, poll)

    async def _poll(self, turn: Turn, poll: Poll) -> None:
        """Read, and tell where that begins to fail, in which way, and where it works again."""
        before = self.state.failing
        try:
            await self._read(turn, poll)
        except Refusal as refusal:
            now = failing(refusal.problem, before.since if before is not None else turn.now().timestamp())
            self.state.failing = now
            if before is None or (before.fault, before.reason) != (now.fault, now.reason):
                tell_failed(turn, poll.connection, now.fault, now.reason, now.detail, now.since)
        else:
            self.state.failing = None
            if before is not None:
                tell_recovered(turn, poll.connection, before.since)

    async def _read(self, turn: Turn, poll: Poll) -> None:
        self.state.begin(_origin(poll), poll)
        given: Json = {"cursor": self.state.cursor}
        found = await turn.perform("sql.query", connection=poll.connection, statement=poll.statement, parameters=given)
        rows = rows_of(poll, self.state, found)
        for row in rows[:ROWS_AT_ONCE]:
            turn.send(self.config["worker"], row.data, received_over=poll.connection)
            self.state.took(row)
        if len(rows) > ROWS_AT_ONCE or (rows and found["truncated"]):
            turn.send(self.config["worker"], MORE)  # behind these rows, so that the inbox holds no more than them
            self.state.more_until = turn.now().timestamp() + MORE_WITHIN_S
        elif not found["truncated"]:
            self.state.reached = None  # it has read all that there is

    def _route(self) -> RouteSpec:
        return RouteSpec.model_validate(self.config["spec"])


def _origin(poll: Poll) -> str:
    return short_id("origin", poll.connection, poll.statement, poll.cursor, poll.id, poll.begin)


def _of_source(route: RouteSpec, envelope: Envelope, worker: str) -> bool:
    """Whether an envelope came by the source: who writes to the worker itself goes no way round it."""
    if isinstance(route.source, EventsSource):
        return envelope.type == FEEDBACK
    if isinstance(route.source, PollSource):
        return envelope.source == "/{}/agents/{}".format(*worker.split("/"))
    return (envelope.subject or "").rpartition("/")[2] == route.source.channel


def _made(route: RouteSpec, data: Any, about: dict[str, Any]) -> tuple[bool, Any]:
    """Whether a message goes through the filter, and what the transform makes of it."""
    if route.filter is None and route.transform is None:
        return True, data
    try:
        return EVALUATOR.ask(data, route.filter, route.transform, envelope=about)
    except Unfit as unfit:
        raise refuse("INVALID_VALUE", str(unfit), field="/data", message_id=about.get("id")) from None


async def _pass(turn: Turn, route: RouteSpec, made: Any, key: str | None) -> int:
    """What became of a message goes to the sink; how often that was tried in vain before."""
    sink, attempts = route.sink, 1
    if isinstance(sink, ChannelSink):
        turn.publish(sink.channel, made, key)
    elif isinstance(sink, EffectSink):
        result, attempts = await _performed(turn, sink, made)
        _reply(turn, route, result, key, sink.connection)
    elif route.reply is None:
        turn.send(sink.agent, made, key)
    else:
        _reply(turn, route, (await turn.ask(sink.agent, made, sink.deadline_s)).data, key)
    return attempts - 1


def _reply(turn: Turn, route: RouteSpec, answer: Any, key: str | None, over: str | None = None) -> None:
    """The answer, to whom it is for; `over` is the connection that it came in over."""
    if route.reply is not None:
        turn.publish(route.reply.channel, answer, key, received_over=over)


async def _performed(turn: Turn, sink: EffectSink, made: Any) -> tuple[Any, int]:
    """The effect's result, and at which attempt. What failed was not done, and is tried again, parked in between; what
    was done and is not accepted never is: it would be done twice, under another key."""
    if not isinstance(made, dict):
        raise refuse("INVALID_VALUE", "the arguments of an effect are an object", field="/spec/transform")
    arguments = {**made, **sink.arguments}
    if taken := [it for it in OURS if it in arguments]:
        raise refuse("INVALID_VALUE", f"{taken[0]} is no argument", field=f"/{taken[0]}", name=taken[0])
    wait_s = WAIT_FIRST_S
    for attempt in range(1, sink.attempts_max + 1):
        try:
            result = await turn.perform(sink.effect, connection=sink.connection, **arguments)
        except Refusal as refusal:
            if attempt == sink.attempts_max or refusal.problem.reason not in AGAIN:
                raise
            await turn.sleep(min(refusal.problem.retry_after_s or wait_s, WAIT_MOST_S))
            wait_s = min(wait_s * 2, WAIT_MOST_S)
        else:
            return _accepted(sink, result), attempt
    raise AssertionError("the last attempt answers or raises")


def _accepted(sink: EffectSink, result: Any) -> Any:
    try:
        if sink.accept is None or EVALUATOR.ask(result, accept=sink.accept)[0]:
            return result
    except Unfit as unfit:
        raise refuse("INVALID_VALUE", str(unfit), field="/spec/sink/accept") from None
    raise refuse("EFFECT_FAILED", f"{sink.effect} answered what the route does not accept", effect=sink.effect)
