"""The turn engine, against a scripted gate in memory (our own protocol peer)."""

import asyncio
import contextlib
import subprocess
import threading
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from ray_runtime import Agent, Envelope, Refusal, Turn
from schemas.base import short_id
from schemas.wire import Ask, Commit, Failed, Park, Receipt, Resolved
from tests.runtime.scripted import STARTED_AT, ScriptedTurn, echo_script, envelope, load, problem_of


class Counted(BaseModel):
    count: int = 0
    seen: list[Any] = Field(default_factory=list)


class Busy(Agent):
    """Does one of everything, and branches on what it is answered."""

    state: Counted

    async def on_message(self, turn: Turn, envelope: Envelope) -> Any:
        self.state.count += 1
        turn.send("other", {"n": turn.random()})
        first = await turn.perform("machine.read", purpose="look", what="cpu")
        await turn.publish("reports", {"id": turn.uuid(), "first": first}, key="k")
        answer = await turn.ask("oracle", {"at": turn.now()})
        turn.timer("tick", every_s=5, data=answer.data)
        await turn.sleep(3600)
        turn.request("ns2/late", [turn.now(), turn.rng.randint(1, 1000)])
        last = await turn.perform("machine.read", what="memory")
        turn.cancel_timer("old")
        child = turn.spawn("child", config={"of": self.name})
        self.state.seen.append([last, child])
        return {"done": turn.now().isoformat(), "uuid": turn.uuid()}


def test_a_turn_asks_parks_and_commits_in_the_order_of_its_positions() -> None:
    """One frame for each wait, each carrying what was buffered before it."""
    turn = ScriptedTurn(Busy, {"x": 1})
    kinds = []
    turn.attempt()
    while not isinstance(turn.frames[-1], Commit):
        kinds.append([type(turn.frames[-1]).__name__, *(e.kind for e in turn.frames[-1].entries)])  # type: ignore[attr-defined]
        turn.step()
    end = turn.frames[-1]
    assert kinds == [["Ask", "send"], ["Park", "publish", "ask"], ["Park", "timer", "sleep"], ["Ask", "request"]]
    assert [e.kind for e in end.entries] == ["timer_cancel", "spawn"]
    assert sorted(turn.journal) == list(range(10))
    assert orjson.loads(end.state)["count"] == 1
    assert end.cpu_ns > 0


def test_the_body_of_an_entry_holds_complete_names() -> None:
    """Whoever reads the journal needs nothing else to know who was meant."""
    turn = ScriptedTurn(Busy)
    turn.run()
    bodies = {entry.kind: orjson.loads(entry.body) for entry in turn.journal.values()}
    assert bodies["send"]["to"] == "default/other"
    assert bodies["request"]["to"] == "ns2/late"
    assert bodies["publish"]["channel"] == "default/reports"
    assert bodies["spawn"] == {
        "name": "child",
        "entrypoint": None,
        "config": {"of": "a"},
        "purpose": None,
        "grants": None,
    }
    assert bodies["timer"] == {
        "name": "tick",
        "after_s": None,
        "every_s": 5.0,
        "data": {"asked": bodies["ask"]["data"]},
    }


def test_two_runs_of_a_turn_ask_for_the_same_effects() -> None:
    """Determinism: time, randomness and ids come from the turn."""
    first, second = ScriptedTurn(Busy), ScriptedTurn(Busy)
    one, two = first.run(), second.run()
    assert first.journal == second.journal
    assert isinstance(one, Commit)
    assert isinstance(two, Commit)
    assert (one.state, one.reply, one.state_digest) == (two.state, two.reply, two.state_digest)


@pytest.mark.parametrize("keep", range(11))
@pytest.mark.parametrize("with_receipt", [True, False])
def test_a_replay_from_any_crash_point_ends_the_same(keep: int, with_receipt: bool) -> None:
    """The journal cut at every position, with and without the last receipt: the same effects, the same end."""
    whole = ScriptedTurn(Busy)
    end = whole.run()
    again = ScriptedTurn(Busy)
    again.journal = {p: e for p, e in whole.journal.items() if p < keep}
    # the clock of a cut journal goes on where its last answer was
    again.clock = max([e.at for e in again.journal.values()], default=STARTED_AT)
    if not with_receipt and keep and again.journal[keep - 1].outcome:
        cut = whole.journal[keep - 1]
        again.journal[keep - 1] = type(cut)("0", keep - 1, cut.kind, cut.body, "", b"", 0.0, cut.state)
        again.clock = cut.at - 1.5
    repeated = again.run()
    assert isinstance(end, Commit)
    assert isinstance(repeated, Commit)
    assert (repeated.state, repeated.reply) == (end.state, end.reply)
    assert again.journal == whole.journal
    answered_before = {p for p, e in whole.journal.items() if p < keep - (not with_receipt)}
    assert not answered_before & {p for p, _, _ in again.asked}, "nothing that was answered is asked again"


class Program(Agent):
    """Runs a list of steps given as its message: any program of effects."""

    async def on_message(self, turn: Turn, envelope: Envelope) -> Any:
        seen: list[Any] = []
        for step in envelope.data:
            if step == "send":
                seen.append(await turn.send("b", {"r": turn.random()}))
            elif step == "perform":
                seen.append(await turn.perform("machine.read", n=turn.rng.randint(0, 9)))
            elif step == "ask":
                seen.append((await turn.ask("b", turn.uuid())).data)
            elif step == "sleep":
                await turn.sleep(turn.random())
            else:
                turn.publish("c", str(turn.now()))
        self.state["seen"] = seen
        return seen


@given(st.lists(st.sampled_from(["send", "perform", "ask", "sleep", "publish"]), max_size=12), st.data())
def test_any_program_replays_from_any_cut(program: list[str], data: st.DataObject) -> None:
    """The property behind replay: for every program and every crash point."""
    whole = ScriptedTurn(Program, program)
    end = whole.run()
    cut = data.draw(st.integers(0, len(whole.journal)))
    again = ScriptedTurn(Program, program)
    again.journal = {p: e for p, e in whole.journal.items() if p < cut}
    again.clock = max([e.at for e in again.journal.values()], default=STARTED_AT)
    repeated = again.run()
    assert isinstance(end, Commit)
    assert isinstance(repeated, Commit)
    assert again.journal == whole.journal
    assert (repeated.state, repeated.reply) == (end.state, end.reply)


def test_going_on_in_place_and_by_replay_can_not_be_told_apart() -> None:
    """Dropped at each park and run again, the turn ends as if it had stayed."""
    stayed = ScriptedTurn(Busy)
    end = stayed.run()
    dropped = ScriptedTurn(Busy)
    dropped.attempt()
    while isinstance(dropped.frames[-1], Ask | Park):
        assert dropped.activation is not None
        dropped.activation.drop()
        dropped.answer()
        dropped.attempt()
    assert dropped.frames[-1].reply == end.reply  # type: ignore[attr-defined,union-attr]
    assert dropped.journal == stayed.journal


def test_time_moves_only_at_recorded_events() -> None:
    """now() is the time of the start, then of the last receipt or answer."""

    class Clock(Agent):
        async def on_message(self, turn: Turn, envelope: Envelope) -> Any:
            times = [turn.now(), turn.now()]
            await turn.perform("machine.read")
            times.append(turn.now())
            await turn.sleep(60)
            return [*times, turn.now()]

    turn = ScriptedTurn(Clock)
    end = turn.run()
    assert isinstance(end, Commit)
    seconds = [datetime.fromisoformat(t).timestamp() - STARTED_AT for t in orjson.loads(end.reply)]
    assert seconds == [0, 0, 1.5, 3.0]


def test_ids_of_messages_come_from_turn_and_position() -> None:
    """A retry makes the same ids, and the id is there without an await."""

    class Sender(Agent):
        async def on_message(self, turn: Turn, envelope: Envelope) -> Any:
            return [turn.send("b", 1), await turn.request("b", 2), str(turn.publish("c", 3))]

    end = ScriptedTurn(Sender).run()
    assert isinstance(end, Commit)
    assert orjson.loads(end.reply) == [short_id("msg", "turn_1", "0", p) for p in range(3)]


def test_the_reply_of_a_hook_may_be_a_model_or_nothing() -> None:
    """Models become JSON, None becomes null."""

    class Model(Agent):
        async def on_message(self, turn: Turn, envelope: Envelope) -> Any:
            return Counted(count=3) if envelope.data else None

    model, nothing = ScriptedTurn(Model, 1).run(), ScriptedTurn(Model, 0).run()
    assert isinstance(model, Commit)
    assert isinstance(nothing, Commit)
    assert orjson.loads(model.reply) == {"count": 3, "seen": []}
    assert nothing.reply == b"null"


# What a handler must not do


def failing(body: Any) -> ScriptedTurn:
    """A turn whose handler is `body`."""

    class Failing(Agent):
        state: Counted

        async def on_message(self, turn: Turn, envelope: Envelope) -> Any:
            return await body(self, turn)

    return ScriptedTurn(Failing)


async def _foreign_sleep(agent: Agent, turn: Turn) -> None:
    await asyncio.sleep(0.01)


async def _bare_yield(agent: Agent, turn: Turn) -> None:
    await asyncio.sleep(0)


async def _task(agent: Agent, turn: Turn) -> None:
    started = asyncio.create_task(asyncio.sleep(1))
    started.cancel()


async def _swallowed_task(agent: Agent, turn: Turn) -> None:
    with contextlib.suppress(Exception):
        asyncio.get_running_loop().call_soon(print)


async def _executor(agent: Agent, turn: Turn) -> None:
    await asyncio.to_thread(print)


async def _thread(agent: Agent, turn: Turn) -> None:
    threading.Thread(target=print).start()


async def _process(agent: Agent, turn: Turn) -> None:
    subprocess.run(["true"])  # noqa: ASYNC221 - this is what must not work


async def _foreign_future(agent: Agent, turn: Turn) -> None:
    loop = asyncio.new_event_loop()
    try:
        await loop.create_future()
    finally:
        loop.close()


_elsewhere: list[Turn] = []


async def _kept_turn(agent: Agent, turn: Turn) -> None:
    _elsewhere.append(turn)
    if len(_elsewhere) > 1:
        _elsewhere[0].send("b", 1)


@pytest.mark.filterwarnings("ignore:coroutine 'sleep' was never awaited")
@pytest.mark.parametrize(
    "body",
    [_foreign_sleep, _bare_yield, _task, _swallowed_task, _executor, _thread, _process, _foreign_future],
)
def test_what_can_not_be_replayed_ends_the_turn_without_retry(body: Any) -> None:
    """Foreign awaits, tasks, threads and processes are a Problem, swallowed or not."""
    end = failing(body).run()
    assert problem_of(end)["reason"] == "NONDETERMINISTIC"
    assert isinstance(end, Failed)
    assert end.retry is False


def test_a_turn_kept_beyond_its_end_is_refused() -> None:
    """Another turn's methods can not be used from this one."""
    _elsewhere.clear()
    assert isinstance(failing(_kept_turn).run(), Commit)
    assert problem_of(failing(_kept_turn).run())["reason"] == "NONDETERMINISTIC"


def test_threads_of_others_start_as_ever() -> None:
    """The watch is on the thread that steps, and only while it does."""
    assert isinstance(ScriptedTurn(Busy).run(), Commit)
    done = threading.Event()
    threading.Thread(target=done.set).start()
    assert done.wait(5)


def test_a_promise_that_nobody_awaits_is_no_silent_nothing() -> None:
    """turn.sleep() without await fails the turn."""

    async def body(agent: Agent, turn: Turn) -> None:
        turn.sleep(5)

    found = problem_of(failing(body).run())
    assert found["reason"] == "HANDLER_ERROR"
    assert "never awaited" in found["detail"]


# Failures


def test_what_a_handler_raises_is_retried_and_says_where() -> None:
    """HANDLER_ERROR with type, message and the user's own frames."""

    async def body(agent: Agent, turn: Turn) -> None:
        raise KeyError("gone")

    end = failing(body).run()
    found = problem_of(end)
    assert found["reason"] == "HANDLER_ERROR"
    assert found["metadata"]["type"] == "KeyError"
    assert "in body" in found["metadata"]["traceback"][-1]
    assert not any("ray_runtime" in frame for frame in found["metadata"]["traceback"])
    assert isinstance(end, Failed)
    assert end.retry is True


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), RecursionError("deep"), GeneratorExit()])
def test_no_exception_of_a_handler_passes_the_turn(error: BaseException) -> None:
    """Whatever is raised, the host lives."""

    async def body(agent: Agent, turn: Turn) -> None:
        raise error

    assert problem_of(failing(body).run())["reason"] == "HANDLER_ERROR"


def denied(kind: str, body: dict[str, Any]) -> tuple[str, Any]:
    """Every effect fails as a gate that denies says it."""
    found = {
        "type": "urn:steward:problem:NOT_GRANTED", "title": "no", "status": 403, "detail": "not granted",
        "reason": "NOT_GRANTED", "recovery": "escalate",
    }  # fmt: skip
    return "failed", found


def test_a_denied_effect_raises_its_problem_in_the_handler() -> None:
    """The handler may catch it and go on, in the same turn."""

    class Careful(Agent):
        async def on_message(self, turn: Turn, envelope: Envelope) -> Any:
            try:
                await turn.perform("sql.execute", statement="x")
            except Refusal as refusal:
                return refusal.problem.reason

    end = ScriptedTurn(Careful, script=denied).run()
    assert isinstance(end, Commit)
    assert end.reply == b'"NOT_GRANTED"'


def test_a_refusal_that_nobody_catches_is_the_turns_problem_and_not_retried() -> None:
    """The journal would raise it again: a retry can not help."""

    async def body(agent: Agent, turn: Turn) -> None:
        await turn.ask("nobody")

    turn = failing(body)
    turn.script = denied
    end = turn.run()
    assert problem_of(end)["reason"] == "NOT_GRANTED"
    assert isinstance(end, Failed)
    assert end.retry is False


def test_a_replay_that_differs_names_the_first_position_and_both_sides() -> None:
    """REPLAY_DIVERGED, and never a guess."""
    turn = ScriptedTurn(Busy)
    turn.attempt()
    recorded = turn.journal[0]
    turn.journal[0] = type(recorded)("0", 0, "send", b'{"data":0,"key":null,"to":"default/x"}', "", b"", 0.0)
    turn.attempt()
    found = problem_of(turn.frames[-1])
    assert found["reason"] == "REPLAY_DIVERGED"
    assert found["metadata"]["position"] == 0
    assert found["metadata"]["recorded"]["body"]["to"] == "default/x"
    assert found["metadata"]["asked"]["body"]["to"] == "default/other"
    assert "turn.now" in found["detail"]
    look = found["next"][0]
    assert (look["operation"], look["arguments"]) == ("turns.get", {"turn_id": "turn_1"})


def test_a_replay_that_stops_short_differs_too() -> None:
    """An entry that is never asked for again is a divergence."""
    turn = ScriptedTurn(Busy)
    turn.run()

    class Silent(Agent):
        pass

    again = ScriptedTurn(Silent, journal=dict(turn.journal))
    found = problem_of(again.run())
    assert found["reason"] == "REPLAY_DIVERGED"
    assert found["metadata"]["asked"]["kind"] == "nothing"


def test_a_divergence_that_is_swallowed_ends_the_turn_all_the_same() -> None:
    """A handler can not talk its way out of a limit or a divergence."""

    class Stubborn(Agent):
        async def on_message(self, turn: Turn, envelope: Envelope) -> Any:
            for n in range(5):
                with contextlib.suppress(Refusal):
                    turn.send("b", n)

    end = ScriptedTurn(Stubborn, effects_max=3).run()
    assert problem_of(end)["reason"] == "LIMIT_REACHED"
    assert isinstance(end, Failed)
    assert end.retry is False


def test_results_count_against_the_bytes_of_the_journal() -> None:
    """A receipt that is too much ends the turn before the handler sees it."""

    def large(kind: str, body: dict[str, Any]) -> tuple[str, Any]:
        return "succeeded", "x" * 5000

    async def body(agent: Agent, turn: Turn) -> None:
        await turn.perform("machine.read")

    turn = failing(body)
    turn.script, turn.journal_bytes_max = large, 4096
    assert problem_of(turn.run())["metadata"]["limit"] == "journal_bytes_max"


def test_a_turn_that_is_active_too_long_times_out() -> None:
    """turn_s_max counts activity, not the time in which it is parked."""

    async def body(agent: Agent, turn: Turn) -> None:
        until = threading.Event()
        until.wait(0.05)
        await turn.perform("machine.read")

    turn = failing(body)
    turn.turn_s_max = 0.02
    assert problem_of(turn.run())["reason"] == "TURN_TIMEOUT"


def test_what_a_turn_was_active_before_it_rested_counts() -> None:
    """A turn that goes on in place has what is left of its time, and no more than its gate says; not that anew."""

    async def body(agent: Agent, turn: Turn) -> None:
        for _ in range(20):
            threading.Event().wait(0.02)
            await turn.sleep(0.01)

    turn = failing(body)
    turn.turn_s_max = 0.1
    found = problem_of(turn.run())
    assert (found["reason"], found["metadata"]["max"], found["detail"]) == (
        "TURN_TIMEOUT", 0.1, "the turn was active for more than 0.1 s"
    )  # fmt: skip
    assert 2 <= len(turn.journal) <= 5
    turn = failing(body)
    at = turn.attempt()
    told = turn.answer()
    at.resolved(Resolved("turn_1", "0", 0, told.outcome, told.result, told.at, turn_s_left=0.001))
    turn.step()
    assert problem_of(turn.frames[-1])["reason"] == "TURN_TIMEOUT"


def test_a_finally_block_of_a_dropped_turn_reaches_nobody() -> None:
    """Closing a parked coroutine sends nothing and ends nothing but itself."""

    class Cleaning(Agent):
        async def on_message(self, turn: Turn, envelope: Envelope) -> Any:
            try:
                await turn.sleep(10)
            finally:
                turn.send("b", "late")
                await turn.sleep(1)

    turn = ScriptedTurn(Cleaning)
    turn.attempt().drop()
    assert [type(f).__name__ for f in turn.frames] == ["Park"]
    assert list(turn.journal) == [0]


# Arguments


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda t: t.send("b", {1, 2}), "not JSON"),
        (lambda t: t.send("b", {"n": 2**70}), "not JSON"),
        (lambda t: t.send("b", b"raw"), "not JSON"),
        (lambda t: t.send("b", "\ud800"), "not JSON"),
        (lambda t: t.send("B!"), "names no agent"),
        (lambda t: t.send("a/b/c"), "names no agent"),
        (lambda t: t.send("/default/channels/b"), "names no agent"),
        (lambda t: t.send("b\n"), "names no agent"),
        (lambda t: t.send(None), "names no agent"),
        (lambda t: t.publish("/default/agents/b"), "names no channel"),
        (lambda t: t.sleep(-1), "not within"),
        (lambda t: t.sleep(float("nan")), "no number of seconds"),
        (lambda t: t.sleep("5"), "no number of seconds"),
        (lambda t: t.timer("x"), "after_s"),
        (lambda t: t.timer("", after_s=1), "1 to 200"),
        (lambda t: t.timer("x", every_s=0), "not within"),
        (lambda t: t.ask("b", deadline_s=True), "no number of seconds"),
        (lambda t: t.spawn("other/child"), "outside"),
        (lambda t: t.perform(""), "named by a string"),
        (lambda t: t.spawn("child", entrypoint="no entrypoint"), "spawn: entrypoint"),
        (lambda t: t.spawn("child", grants=[{"effekt": "machine.read"}]), "spawn: grants"),
        (lambda t: t.spawn("child", config={"x": {1}}), "not JSON"),
        (lambda t: t.send("b", 1, key="k" * 201), "at most 200"),
        (lambda t: t.publish("c", 1, key=7), "at most 200"),
        (lambda t: t.ask("b", budget={"money": -1}), "ask: budget/money"),
        (lambda t: t.send("b", budget={}), "send: budget"),
        (lambda t: t.spawn("child", budget={"Money": 1.0}), "spawn: budget"),
    ],
)
def test_arguments_are_refused_at_the_call(call: Any, says: str) -> None:
    """A Problem that says what is wrong, at the line that is wrong."""

    async def body(agent: Agent, turn: Turn) -> None:
        call(turn)

    found = problem_of(failing(body).run())
    assert found["reason"] == "INVALID_VALUE"
    assert says in found["detail"]


def test_data_is_what_it_was_at_the_call() -> None:
    """What a handler changes later is not sent."""

    async def body(agent: Agent, turn: Turn) -> None:
        data = {"n": 1, "model": Counted(), "at": datetime(2026, 1, 1, tzinfo=UTC)}
        turn.send("/default/agents/b", data)
        data["n"] = 2

    turn = failing(body)
    turn.run()
    sent = orjson.loads(turn.journal[0].body)
    assert sent["data"] == {"n": 1, "model": {"count": 0, "seen": []}, "at": "2026-01-01T00:00:00+00:00"}
    assert sent["to"] == "default/b"


# State and hooks


def test_state_is_loaded_from_what_was_committed() -> None:
    """The next turn begins where the last one ended, in any host."""
    first = ScriptedTurn(Busy).run()
    assert isinstance(first, Commit)
    second = ScriptedTurn(Busy, state=first.state, version=1).run()
    assert isinstance(second, Commit)
    assert orjson.loads(second.state)["count"] == 2


def test_state_that_does_not_fit_its_model_is_a_problem_of_the_code() -> None:
    """An upgrade that can not read the old state says which field."""
    end = ScriptedTurn(Busy, state=b'{"count":"many"}', version=3, trigger="start").run()
    found = problem_of(end)
    assert found["reason"] == "INVALID_CODE"
    assert "count" in found["detail"]


def test_state_over_its_bound_is_refused() -> None:
    """A state grows to its bound and no further."""

    async def body(agent: Agent, turn: Turn) -> None:
        agent.state.seen = ["x" * 3000]

    turn = failing(body)
    turn.state_bytes_max = 2048
    assert problem_of(turn.run())["metadata"]["limit"] == "state_bytes_max"


def test_state_must_stay_what_it_is_declared_to_be() -> None:
    """Another value in the place of the state fails the turn."""

    async def body(agent: Agent, turn: Turn) -> None:
        agent.state = {"count": 1}

    assert problem_of(failing(body).run())["metadata"]["type"] == "TypeError"


class Hooks(Agent):
    async def on_start(self, turn: Turn) -> None:
        self.state["started"] = [self.name, self.namespace, self.config]

    async def on_reply(self, turn: Turn, reply: Envelope) -> None:
        self.state["reply"] = [reply.causationid, reply["answer"]]

    async def on_timer(self, turn: Turn, timer: Envelope) -> None:
        self.state["timer"] = [timer.subject, timer.data]


@pytest.mark.parametrize(
    ("trigger", "version", "message", "state"),
    [
        ("start", 0, envelope(), {"started": ["a", "default", {"k": 1}]}),
        ("start", 4, envelope(), {}),
        ("reply", 1, envelope({"answer": 42}, causationid="msg_q"), {"reply": ["msg_q", 42]}),
        ("timer", 1, envelope({"d": 1}, type="steward.timer", subject="tick"), {"timer": ["tick", {"d": 1}]}),
        ("message", 1, envelope("for nobody"), {}),
    ],
)
def test_each_trigger_has_its_hook(trigger: str, version: int, message: bytes, state: dict[str, Any]) -> None:
    """on_start once, in the first turn; the others by what came."""
    end = ScriptedTurn(Hooks, trigger=trigger, version=version, message=message, state=b"{}" if version else b"").run()
    assert isinstance(end, Commit)
    assert orjson.loads(end.state) == state


def test_nothing_but_state_lives_on() -> None:
    """Attributes of the object are gone with the turn: each turn has its own object."""

    class Leaky(Agent):
        async def on_message(self, turn: Turn, envelope: Envelope) -> Any:
            before = getattr(self, "kept", None)
            self.kept = 1
            return before

    for _ in range(2):
        end = ScriptedTurn(Leaky).run()
        assert isinstance(end, Commit)
        assert end.reply == b"null"


def test_a_hook_that_is_not_async_is_refused_with_its_name() -> None:
    """When the class is made, so that the import says it."""
    with pytest.raises(Refusal, match="on_message must be async"):

        class Sync(Agent):
            def on_message(self, turn: Turn, envelope: Envelope) -> Any:  # type: ignore[override]
                return None


def test_a_state_without_defaults_is_refused_with_its_field() -> None:
    """A state must come to be by itself."""

    class Needy(BaseModel):
        must: int

    class NeedyAgent(Agent):
        state: Needy

    with pytest.raises(Refusal, match="must"):
        load(NeedyAgent)


def test_cpu_is_counted_once_across_segments() -> None:
    """The sum over the frames of a turn is what its steps took, and waiting took none."""

    async def body(agent: Agent, turn: Turn) -> None:
        sum(n * n for n in range(300_000))
        await turn.sleep(1)

    turn = failing(body)
    turn.attempt()
    park = turn.frames[-1]
    assert isinstance(park, Park)
    end = turn.step()
    assert isinstance(end, Commit)
    assert park.cpu_ns > 5_000_000
    assert end.cpu_ns < park.cpu_ns / 2


def test_an_answer_to_another_position_moves_nothing() -> None:
    """Late and foreign answers are ignored."""
    turn = ScriptedTurn(Busy)
    activation = turn.attempt()
    asked = turn.frames[-1]
    assert isinstance(asked, Ask)
    activation.receipt(Receipt("turn_1", "0", 7, "succeeded", b"1", STARTED_AT))
    activation.resolved(Resolved("turn_1", "0", asked.position, "answered", envelope(), STARTED_AT))
    assert turn.frames == [asked]
    assert echo_script("sleep", {}) == ("slept", None)
