"""What is handed on while its commit is on its way: at once, and nothing of it is kept that builds on what was not."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import text

from controlplane.store.unit import Unit
from schemas.problem import Refusal
from tests.faults.history import said
from tests.faults.points import Arming, fault
from tests.gate.running import RunningGate, running, true

pytestmark = pytest.mark.anyio
Asking = asyncio.Task[Any]
COMMIT = {"sqlite": "store.sqlite.commit", "postgresql": "store.postgresql.commit"}
STANDS_S = 60.0
REPEATS = 40
SOURCE = """
import pathlib, time
from pydantic import BaseModel
from ray_runtime import Agent


class Counts(BaseModel):
    seen: int = 0


def mark(path, word):
    with open(path, "a") as out:
        out.write(word + " ")


def wait(data, who):
    # for the test, in the very host
    while data.get("waits") == who and not pathlib.Path(data["path"] + "-go").exists():
        time.sleep(0.01)


class Says(Agent):
    state: Counts

    async def on_message(self, turn, envelope):
        if envelope.data is None:
            return self.state.seen
        mark(envelope.data["path"], "asked")
        wait(envelope.data, "says")
        self.state.seen += 1
        if "note" in envelope.data:
            mark(envelope.data["path"], "told")
            await turn.perform("notes.again", path=envelope.data["note"], text="x")
        return self.state.seen


class Heard(BaseModel):
    all: list = []


class Hears(Agent):
    state: Heard

    async def on_message(self, turn, envelope):
        if envelope.data is None:
            return self.state.all
        self.state.all.append(envelope.data)


class Does(Agent):
    state: Counts

    async def on_message(self, turn, envelope):
        if envelope.data is None:
            return self.state.seen
        for n, wait_s in enumerate((1.0, 0.0)):
            told = await turn.perform("notes.once", path=envelope.data["note"], text=f"n{n}", wait_s=wait_s)
            mark(envelope.data["path"], told["noted"])
        self.state.seen += 1
        return self.state.seen


class Asks(Agent):
    state: Counts

    async def on_message(self, turn, envelope):
        if envelope.data is None:
            return self.state.seen
        mark(envelope.data["path"], "began")
        wait(envelope.data, "asks")
        answer = await turn.ask(envelope.data["whom"], envelope.data)
        mark(envelope.data["path"], "answered")
        self.state.seen += 1
        again = await turn.ask(envelope.data["whom"], envelope.data)
        return [answer.data, again.data]
"""
GRANTS: dict[str, Any] = {"mandate": {"grants": [{"effect": "notes.*", "connection": None}]}}
AWAKE: dict[str, Any] = {"suspend_after_ms": 60_000, **GRANTS}


@pytest.fixture
def arming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Arming:
    return Arming(tmp_path, monkeypatch)


@asynccontextmanager
async def awake(url: str) -> AsyncIterator[RunningGate]:
    """With one that asks and one that answers, both awake with nothing to do."""
    async with running(url, loop_held_s_max=60.0) as gate:  # handlers hold it, for the tests
        code = await gate.code(SOURCE)
        for name, cls in (("asks", "Asks"), ("says", "Says")):
            await gate.agent(name, code, cls, **AWAKE)
        await gate.channel("news", "agent_says")
        idle = "SELECT COUNT(*) FROM turn WHERE finished_at IS NOT NULL"
        await gate.until(idle, lambda rows: rows[0][0] == 2)
        for name in ("asks", "says"):  # which the bell behind their declaration may have let go once more
            assert await gate.ask(name, None, f"{name}-wakes") == 0
        yield gate


@pytest.fixture
async def gate(anyio_backend: str, quick_url: str, arming: Arming) -> AsyncIterator[RunningGate]:
    async with awake(quick_url) as gate:
        yield gate


@pytest.fixture
async def either(anyio_backend: str, database_url: str, arming: Arming) -> AsyncIterator[RunningGate]:
    """On both databases, for those tests that show best that a commit is waited for."""
    async with awake(database_url) as gate:
        yield gate


def commit_of(gate: RunningGate) -> str:
    return COMMIT["sqlite" if gate.url.startswith("sqlite") else "postgresql"]


def read(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def stand(gate: RunningGate, arming: Arming) -> None:
    """From now on, the writer stands before its next COMMIT, and all that comes is behind that."""
    arming.put(fault(commit_of(gate), "stand", 1, STANDS_S))


async def begun(gate: RunningGate, path: Path, who: str, fault_now: Callable[[], None], **more: Any) -> Asking:
    """A question to who asks; when the handler of `who` has begun, and all before it is committed, comes the fault."""
    given = {"whom": "says", "path": str(path), "waits": who, **more}
    asking = asyncio.create_task(gate.ask("asks", given, "q", timeout_s=60))
    word, kept = {"asks": ("began", "inbox"), "says": ("asked", "journal")}[who]
    await true(lambda: word in read(path))
    await gate.until(f"SELECT COUNT(*) FROM {kept}", _one)
    fault_now()
    path.with_name(path.name + "-go").touch()
    return asking


async def restarted(gate: RunningGate, arming: Arming) -> None:
    gate.kill()
    arming.put()
    gate.start()
    async with asyncio.timeout(30):
        await gate.client.up()


async def published(gate: RunningGate, message_id: str, data: Any) -> None:
    body = {
        "specversion": "1.0", "id": message_id, "source": "/operators/test", "type": "steward.message",
        "time": "2026-01-01T00:00:00Z", "data": data,
    }  # fmt: skip
    await gate.client.publish_channel("default", "news", message_id, orjson.dumps(body))


async def test_what_an_inbox_holds_is_not_overtaken(database_url: str) -> None:
    """While an agent finds message after message that it has had, what is published comes in its order."""
    async with running(database_url) as gate:
        uid = await gate.agent("hears", await gate.code(SOURCE), "Hears", **AWAKE)
        await gate.channel("news", uid)
        for n in range(REPEATS):
            await published(gate, f"r{n}", n)
        await gate.until("SELECT COUNT(*) FROM turn WHERE trigger = 'message'", lambda rows: rows[0][0] == REPEATS)
        again = (
            "INSERT INTO inbox (agent, message_id, trigger, body, accepted_at, attempts)"
            " SELECT 'agent_hears', message_id, 'message', body, 1.0, 0 FROM channel_message ORDER BY position"
        )
        assert await gate.store.write(Unit().run(text(again)))
        for n in range(REPEATS, 2 * REPEATS):
            await published(gate, f"r{n}", n)
        await gate.until("SELECT COUNT(*) FROM inbox", lambda rows: rows[0][0] == 0)
        assert await gate.ask("hears", None, "what") == list(range(2 * REPEATS))


async def test_who_is_asked_begins_before_that_is_committed(
    either: RunningGate, arming: Arming, tmp_path: Path
) -> None:
    """The writer stands before the COMMIT of the question. The gate is killed there: each has done all of it once."""
    path = tmp_path / "said"
    asking = await begun(either, path, "asks", lambda: stand(either, arming))
    await true(lambda: "asked" in read(path))
    assert not await either.rows("SELECT 1 FROM awaiting WHERE kind = 'ask'")
    await restarted(either, arming)
    assert await asking == [1, 2]
    await _once(either)


async def test_who_asks_goes_on_before_the_answer_is_committed(
    gate: RunningGate, arming: Arming, tmp_path: Path
) -> None:
    """The writer stands before the COMMIT of the answer. The gate is killed there: each has done all of it once."""
    path = tmp_path / "said"
    asking = await begun(gate, path, "says", lambda: stand(gate, arming))
    await true(lambda: "answered" in read(path))
    assert await gate.rows("SELECT outcome FROM awaiting WHERE kind = 'ask'") == [(None,)]
    await restarted(gate, arming)
    assert await asking == [1, 2]
    await _once(gate)


async def test_who_is_asked_waits_with_the_world_until_the_question_is_committed(
    gate: RunningGate, arming: Arming, tmp_path: Path
) -> None:
    """An effect of a turn that was handed its message is not sent before; then it is, once."""
    path, note = tmp_path / "said", tmp_path / "note"
    asking = await begun(gate, path, "asks", lambda: stand(gate, arming), note=str(note))
    await true(lambda: "told" in read(path))
    before = await gate.rows("SELECT COUNT(*) FROM journal WHERE kind = 'effect'")
    assert (before[0][0], note.exists()) == (0, False)
    arming.go()
    assert await asking == [1, 2]
    assert note.read_text().split().count("x") == 2


async def test_a_publication_reaches_a_member_that_rests_before_its_commit(
    gate: RunningGate, arming: Arming, tmp_path: Path
) -> None:
    """The gate dies then, and nobody was told that it is published: it is said again, and kept once."""
    path = tmp_path / "said"
    await published(gate, "m0", {"path": str(path)})
    await gate.until("SELECT COUNT(*) FROM turn WHERE message_id = 'm0' AND finished_at IS NOT NULL", _one)
    stand(gate, arming)
    saying = asyncio.create_task(published(gate, "m1", {"path": str(path)}))
    await true(lambda: len(read(path)) == 2)
    await restarted(gate, arming)
    await saying  # the plane has said it again
    await gate.until("SELECT COUNT(*) FROM turn WHERE message_id = 'm1' AND finished_at IS NOT NULL", _one)
    assert await gate.ask("says", None, "seen") == 2
    assert len(read(path)) == 3


async def suspended(gate: RunningGate) -> None:
    """The one that says is a row, and nothing else."""
    await gate.client.control("suspend", "agent_says", {})
    await gate.until("SELECT owner FROM agent WHERE name = 'says'", lambda rows: rows == [(None,)])


async def test_a_suspended_agent_begins_before_its_message_and_owner_are_committed(
    either: RunningGate, arming: Arming, tmp_path: Path
) -> None:
    """The gate is killed there: the message that was not taken in is said again, and handled once."""
    await suspended(either)
    path = tmp_path / "said"
    stand(either, arming)
    asking = asyncio.create_task(either.ask("says", {"path": str(path)}, "q", timeout_s=60))
    await true(lambda: read(path) == ["asked"])
    assert await either.rows("SELECT owner FROM agent WHERE name = 'says'") == [(None,)]
    assert not await either.rows("SELECT 1 FROM inbox")
    await restarted(either, arming)
    assert await asking == 1
    assert await either.ask("says", None, "says-seen") == 1


async def test_who_wakes_it_is_told_so_once_its_owner_is_committed(
    gate: RunningGate, arming: Arming, tmp_path: Path
) -> None:
    """Until then it may be anybody's yet."""
    await suspended(gate)
    path = tmp_path / "said"
    stand(gate, arming)
    asking = asyncio.create_task(gate.ask("says", {"path": str(path)}, "q", timeout_s=60))
    await true(lambda: read(path) == ["asked"])
    assert "waits_for" in await gate.client.control("wake", "agent_says", {})
    arming.go()
    assert await asking == 1
    assert "waits_for" not in await gate.client.control("wake", "agent_says", {})


async def test_a_suspended_agent_whose_owner_can_not_be_committed_is_taken_back(
    sqlite_url: str, arming: Arming, tmp_path: Path
) -> None:
    """The disk is full then: it is handled once, by whoever owns it at last."""
    async with awake(sqlite_url) as gate:
        await suspended(gate)
        (before,) = await gate.rows("SELECT epoch FROM agent WHERE name = 'says'")
        path = tmp_path / "said"
        arming.put(*(fault(COMMIT["sqlite"], "full", nth) for nth in (1, 2, 3, 4)))  # together, apart, and each alone
        asking = asyncio.create_task(gate.ask("says", {"path": str(path)}, "q", timeout_s=60))
        await true(lambda: read(path) != [])
        with suppress(Refusal):  # it may be told that it was not taken in, and is said again then
            await asking
        # where its unit and the owner's were not in one transaction, more of the disk's trouble is left
        assert await said(lambda: gate.ask("says", {"path": str(path)}, "q", timeout_s=60)) == 1
        assert await gate.ask("says", None, "says-seen") == 1
        assert not await gate.rows("SELECT 1 FROM turn WHERE attempts > 1")
        (after,) = await gate.rows("SELECT epoch FROM agent WHERE name = 'says'")
        assert after[0] >= before[0] + 2, "the epoch that its host had heard of is not given again"


@pytest.mark.parametrize("who", ["asks", "says"])
async def test_what_can_not_be_committed_is_taken_back(
    sqlite_url: str, arming: Arming, tmp_path: Path, who: str
) -> None:
    """The disk is full as the question, or the answer, is committed: all that was built on it is done again, once."""
    async with awake(sqlite_url) as gate:
        full = [fault(COMMIT["sqlite"], "full", nth) for nth in (1, 2, 3)]
        asking = await begun(gate, tmp_path / "said", who, lambda: arming.put(*full))
        assert await asking == [1, 2]
        await _once(gate)
        assert not await gate.rows("SELECT 1 FROM turn WHERE attempts > 1")


async def doing(gate: RunningGate, tmp_path: Path) -> tuple[Asking, Path, Path]:
    """A turn of two effects, as the first has been sent and is not confirmed."""
    await gate.agent("does", await gate.code(SOURCE), "Does", **AWAKE)
    path, note = tmp_path / "said", tmp_path / "note"
    asking = asyncio.create_task(gate.ask("does", {"path": str(path), "note": str(note)}, "q", timeout_s=60))
    await true(lambda: "n0" in read(note))
    return asking, path, note


async def test_a_turn_hears_of_its_receipt_before_the_commit_and_sends_nothing_more(
    gate: RunningGate, arming: Arming, tmp_path: Path
) -> None:
    """The writer stands before the COMMIT of the receipt. The next effect is sent behind that, once."""
    asking, path, note = await doing(gate, tmp_path)
    stand(gate, arming)
    await true(lambda: "n0" in read(path))
    assert await gate.rows("SELECT outcome FROM journal WHERE kind = 'effect'") == [(None,)]
    assert "n1" not in read(note)
    arming.go()
    assert await asking == 1
    assert [it for it in read(note) if it.startswith("n")] == ["n0", "n1"]
    assert read(path) == ["n0", "n1"]
    assert not await gate.rows("SELECT 1 FROM turn WHERE attempts > 1")


async def test_a_receipt_that_dies_with_the_gate_is_in_doubt(
    either: RunningGate, arming: Arming, tmp_path: Path
) -> None:
    """Its turn had heard of it, and nothing is kept of what it did with that; the effect is not sent again."""
    asking, path, note = await doing(either, tmp_path)
    stand(either, arming)
    await true(lambda: "n0" in read(path))
    await restarted(either, arming)
    await either.until("SELECT COUNT(*) FROM awaiting WHERE kind = 'effect' AND resolved_at IS NULL", _one)
    assert [it for it in read(note) if it.startswith("n")] == ["n0"]
    assert read(path) == ["n0"]
    assert not asking.done()
    asking.cancel()


async def test_a_receipt_that_can_not_be_committed_is_taken_back(
    sqlite_url: str, arming: Arming, tmp_path: Path
) -> None:
    """The disk is full as it is committed: the turn runs again and hears of it then, and nothing is sent again."""
    async with awake(sqlite_url) as gate:
        asking, _, note = await doing(gate, tmp_path)
        arming.put(*(fault(COMMIT["sqlite"], "full", nth) for nth in (1, 2, 3)))
        assert await asking == 1
        assert [it for it in read(note) if it.startswith("n")] == ["n0", "n1"]
        assert not await gate.rows("SELECT 1 FROM turn WHERE attempts > 1 OR outcome <> 'committed'")


async def _once(gate: RunningGate) -> None:
    assert await gate.ask("says", None, "says-seen") == 2
    assert await gate.ask("asks", None, "asks-seen") == 1
    assert not await gate.rows("SELECT 1 FROM turn WHERE outcome <> 'committed'")


def _one(rows: list[tuple[Any, ...]]) -> bool:
    return bool(rows[0][0] == 1)
