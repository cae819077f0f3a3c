"""A workload whose answers are known, in rounds, and the one checker of what its history must look like.

Laws 3, 8, 9, 10 and 11: nothing acknowledged is lost, nothing internal happens twice, order per key,
an external effect without a receipt is in doubt, one owner an epoch, nothing is left open or orphaned.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson

from controlplane.operations import watches
from controlplane.store.unit import Unit
from schemas.base import turn_of
from schemas.posting import Placed
from schemas.problem import Refusal
from tests.gate.running import RunningGate
from tests.gate.zoo import SOURCE

GRANTS: dict[str, Any] = {"mandate": {"grants": [{"effect": "notes.*", "connection": None}]}}
ACCOUNTS = 3
MORE = """

class Spoiler(Agent):
    async def on_message(self, turn, envelope):
        import asyncio
        await asyncio.sleep(0)  # which no turn may


class Stumbler(Agent):
    async def on_message(self, turn, envelope):
        import pathlib
        marker = pathlib.Path(envelope.data)
        if not marker.exists():
            marker.write_text("here")
            raise ValueError("the first time")
        return "up again"


class Person(Agent):
    async def on_message(self, turn, envelope):
        return await turn.ask_human("Which?", ["this", "that"])
"""
QUIET = (
    "SELECT 'inbox ' || agent || ' ' || message_id FROM inbox",
    "SELECT 'await ' || await_id || ' on ' || target FROM awaiting WHERE resolved_at IS NULL",
    "SELECT 'timer ' || agent || ' ' || name FROM timer",
    "SELECT 'turn ' || turn_id || ' ' || outcome FROM turn WHERE finished_at IS NULL",
    "SELECT 'lag ' || s.agent FROM subscription s JOIN channel c ON c.uid = s.channel"
    " WHERE s.position < c.next_position - 1 AND c.mode = 'broadcast'",
    "SELECT 'queued ' || position FROM queued UNION ALL SELECT 'delayed ' || message_id FROM delayed",
    "SELECT 'event ' || e.cursor FROM event e, feedback_watch w WHERE e.type = 'work.done' AND e.cursor > w.position",
)
UNQUIET = " UNION ALL ".join(QUIET)  # one look: what goes from one to the next meanwhile would be seen in none
WORKERS = ("worker-one", "worker-two")
WATCHED: dict[str, Any] = {
    "feedback": {"types": ["work.*"], "kind": None, "name": None, "own": False}, "debounce_s": 0.0, "batch_max": 1,
}  # fmt: skip

NO_RING = "agent NOT LIKE 'agent_ring-%'"  # whose turns fail, since they wait for each other


async def said(say: Callable[[], Awaitable[Any]], timeout_s: float = 40) -> Any:
    """Say it until it was heard, as a careful sender does."""
    limit = time.monotonic() + timeout_s
    while True:
        try:
            return await say()
        except Refusal:
            if time.monotonic() > limit:
                raise
            await asyncio.sleep(0.02)


class World:
    """Agents, what they were told, and what must have come of it."""

    def __init__(self, gate: RunningGate, folder: Path) -> None:
        self.gate = gate
        self.folder = folder
        self.notes = folder / "notes"
        self.notes.touch()
        self.rounds = 0
        self.spoilt: set[str] = set()
        self.code = self.other = ""
        self._amounts = dict.fromkeys([f"account-{n}" for n in range(ACCOUNTS)], 0)
        self._noted: list[Any] = []

    async def begin(self) -> "World":
        gate = self.gate
        code = self.code = await gate.code(SOURCE + MORE)
        self.other = await gate.code(SOURCE + MORE + "# and it does the same\n")
        for name in self._amounts:
            await gate.agent(name, code, "Account", suspend_after_ms=20, **GRANTS)
        await gate.agent("counter", code, "Counter", suspend_after_ms=5_000)
        await gate.agent("asker", code, "Asker", suspend_after_ms=0)
        await gate.agent("patient", code, "Asker", suspend_after_ms=5_000)
        for name in ("ledger", "echo", "publisher", "alarm", "spoiler", "stumbler"):
            await gate.agent(name, code, name.capitalize(), suspend_after_ms=10)
        await gate.agent("noter", code, "Noter", suspend_after_ms=10, **GRANTS)
        member = await gate.agent("member", code, "Member", suspend_after_ms=10)
        await gate.channel("news", member)
        for name in WORKERS:
            await gate.agent(name, code, "Member", suspend_after_ms=10)
        await gate.channel("jobs", *[f"agent_{name}" for name in WORKERS], mode="queue", in_flight_max=2)
        await gate.channel("forgotten", mode="queue")
        witness, unit = await gate.agent("witness", code, "Member", suspend_after_ms=10), Unit()
        watches.set_up(unit, witness, "default", [WATCHED], time.time())
        assert await gate.store.write(unit)
        await self.quiet()
        return self

    async def agent(self, name: str, cls: str, **spec: Any) -> str:
        """One more agent; whoever does not know whether it was made looks."""
        while True:
            try:
                return await self.gate.agent(name, self.code, cls, suspend_after_ms=10, **spec)
            except Refusal:
                await asyncio.sleep(0.05)
            if await self.gate.rows("SELECT 1 FROM agent WHERE name = :name", name=name):
                return f"agent_{name}"

    # Saying things

    async def send(self, name: str, data: Any, message_id: str) -> None:
        await said(lambda: self.gate.send(name, data, message_id))

    async def ask(self, name: str, data: Any, message_id: str) -> Any:
        await said(lambda: self.gate.send(name, data, message_id, time.time() + 600))
        sql = f"SELECT result FROM awaiting WHERE await_id = '{message_id}' AND outcome IS NOT NULL"
        return orjson.loads((await self.gate.until(sql, bool, 60))[0][0])

    async def round(self) -> None:
        """One of everything; comes back when the questions are answered."""
        n = self.rounds = self.rounds + 1
        await asyncio.gather(
            self._transfers(n),
            self._count(n),
            self._question("asker", n),
            self._question("patient", n),
            self._effects(n),
            self._publish(n),
            self._jobs(n),
            self._alarm(n),
            self._happen(n),
        )

    async def _transfers(self, n: int) -> None:
        for i in range(ACCOUNTS):
            source, target = f"account-{i}", f"account-{(i + 1) % ACCOUNTS}"
            self._amounts[source] -= n + i
            self._amounts[target] += n + i
            data: dict[str, Any] = {"to": target, "amount": n + i}
            if i == 0:
                data["note"] = str(self.notes)
            for _ in range(2):  # who does not know whether it was heard says it again
                await self.send(source, data, f"t{n}-{i}")

    async def _count(self, n: int) -> None:
        for i in range(2):
            await self.send("counter", 2 * n + i, f"n{n}-{i}")

    async def _question(self, name: str, n: int) -> None:
        answer = await self.ask(name, {"whom": "echo", "what": n, "sleep": 0.02}, f"q{n}-{name}")
        assert answer == [n, n], f"asked for {[n, n]}, was told {answer}"

    async def _effects(self, n: int) -> None:
        for effect in ("notes.once", "notes.again"):
            data = {"effect": effect, "path": str(self.notes), "text": f"{effect}-{n}"}
            self._noted.append(await self.ask("noter", data, f"e{n}-{effect}"))

    async def _publish(self, n: int) -> None:
        await self.send("publisher", 3, f"p{n}")
        message_id = f"c{n}"
        body = orjson.dumps({
            "specversion": "1.0", "id": message_id, "source": "/operators/test", "type": "steward.message",
            "time": "2026-01-01T00:00:00Z", "data": 100 + n,
        })  # fmt: skip
        await said(lambda: self.gate.client.publish_channel("default", "news", message_id, body))

    async def _jobs(self, n: int) -> None:
        """Of two keys, of which the last of each is delayed; each is said twice."""
        for i in range(6):
            key, late = f"k{i % 2}", i >= 4
            await self.job(
                "jobs", [key, 10 * n + i], f"j{n}-{i}", Placed(key, due_at=time.time() + 0.05 if late else 0.0)
            )

    async def job(self, channel: str, data: Any, message_id: str, how: Placed, **more: str) -> None:
        body = orjson.dumps({
            "specversion": "1.0", "id": message_id, "source": "/operators/test", "type": "steward.message",
            "time": "2026-01-01T00:00:00Z", "data": data, **more,
        })  # fmt: skip
        for _ in range(2):
            await said(lambda: self.gate.client.publish_channel("default", channel, message_id, body, how))

    async def _alarm(self, n: int) -> None:
        await self.send("alarm", {"after_s": 0.02, "data": n}, f"a{n}")

    async def _happen(self, n: int) -> None:
        """An event; who does not know whether it was written writes it again."""
        about = {"kind": "Channel", "namespace": "default", "name": "job", "now": time.time()}
        await said(lambda: self.gate.store.write(Unit().event("work.done", **about, data={"n": n})))

    async def spoil(self, message_id: str) -> None:
        """A turn that fails for good."""
        self.spoilt.add(message_id)
        assert (await self.ask("spoiler", 1, message_id))["reason"] == "NONDETERMINISTIC"

    # What must have come of it

    async def quiet(self, timeout_s: float = 60) -> None:
        """Everything that was said has come to its end, and nothing waits without an end."""
        limit = time.monotonic() + timeout_s
        while left := [row[0] for row in await self.gate.rows(UNQUIET)]:
            assert time.monotonic() < limit, left
            await asyncio.sleep(0.02)

    async def check(self) -> None:
        await self.quiet()
        await self._states()
        await self._turns()
        await self._notes()
        await self._owners()

    async def _state(self, name: str) -> dict[str, Any]:
        rows = await self.gate.rows("SELECT state FROM agent WHERE name = :name", name=name)
        found = orjson.loads(rows[0][0])
        assert isinstance(found, dict)
        return found

    async def _states(self) -> None:
        n = self.rounds
        assert {name: (await self._state(name))["seen"] for name in self._amounts} == self._amounts
        counted = [2 * k + i for k in range(1, n + 1) for i in range(2)]
        assert (await self._state("counter"))["got"] == counted
        assert (await self._state("ledger"))["got"] == counted
        got = (await self._state("member"))["got"]
        assert [it for it in got if it < 100] == [0, 1, 2] * n
        assert [it for it in got if it >= 100] == [100 + k for k in range(1, n + 1)]
        await self._shared(n)
        assert (await self._state("alarm"))["got"] == list(range(1, n + 1))
        assert (await self._state("noter"))["got"] == self._noted
        written = await self.gate.rows("SELECT data FROM event WHERE type = 'work.done' ORDER BY cursor")
        assert [it["data"] for it in (await self._state("witness"))["got"]] == [orjson.loads(row[0]) for row in written]

    async def _shared(self, n: int) -> None:
        """Each job was done once, by one of them; of what was not delayed, each key in its order."""
        shares = [(await self._state(name))["got"] for name in WORKERS]
        assert sorted(it for share in shares for _, it in share) == [
            10 * k + i for k in range(1, n + 1) for i in range(6)
        ]
        for share in shares:
            for key in ("k0", "k1"):
                of_key = [it for found, it in share if found == key and it % 10 < 4]
                assert of_key == sorted(of_key), share

    async def _turns(self) -> None:
        rows = self.gate.rows
        assert await rows("SELECT agent, message_id FROM turn GROUP BY agent, message_id HAVING COUNT(*) > 1") == []
        failed = {
            row[0] for row in await rows(f"SELECT message_id FROM turn WHERE outcome <> 'committed' AND {NO_RING}")
        }
        assert failed == self.spoilt
        assert {row[0] for row in await rows(f"SELECT message_id FROM dead_letter WHERE {NO_RING}")} == self.spoilt
        assert await rows("SELECT t.turn_id FROM turn t JOIN agent a ON a.uid = t.agent WHERE t.epoch > a.epoch") == []

    async def _notes(self) -> None:
        """What was sent was written ahead; what has no receipt of its own was not said to have happened."""
        lines = Counter(line.split()[1] for line in self.notes.read_text().splitlines())
        journal = {
            f"{turn}:{branch}:{position}": (orjson.loads(body)["effect"], outcome)
            for turn, branch, position, body, outcome in await self.gate.rows(
                "SELECT turn_id, branch, position, body, outcome FROM journal WHERE kind = 'effect'"
            )
            if orjson.loads(body)["effect"].startswith("notes.")  # others go by a budget, and are looked at there
        }
        assert set(lines) <= set(journal), "an effect was sent that nobody had written ahead"
        for key, (effect, outcome) in journal.items():
            times = lines[key]
            assert outcome in ("succeeded", "in_doubt"), (key, effect, outcome)
            if effect == "notes.again":
                assert (outcome, times > 0) == ("succeeded", True), (key, outcome, times)
            else:
                assert times <= 1, f"{key} was not to be repeated, and was sent {times} times"
                assert outcome == "in_doubt" or times == 1
        doubts = await self.gate.rows("SELECT turn_id FROM event WHERE type = 'effect.in_doubt'")
        assert len(doubts) == sum(1 for _, outcome in journal.values() if outcome == "in_doubt")
        assert self._noted.count("IN_DOUBT") == len(doubts)

    async def _owners(self) -> None:
        """Whoever owns an agent lives."""
        sql = (
            "SELECT a.name, a.owner FROM agent a LEFT JOIN host h ON h.host_id = a.owner"
            " WHERE a.owner IS NOT NULL AND (h.host_id IS NULL OR h.ended_at IS NOT NULL)"
        )
        await self.gate.until(sql, lambda rows: rows == [], 20)

    async def told(self) -> None:
        """Each turn's end is in the feedback log, once."""
        ended = (await self.gate.rows("SELECT COUNT(*) FROM turn WHERE finished_at IS NOT NULL"))[0][0]
        removed = (await self.gate.rows("SELECT COUNT(*) FROM turn WHERE agent NOT IN (SELECT uid FROM agent)"))[0][0]
        sql = "SELECT data FROM event WHERE type = 'turns.summary'"
        told = await self.gate.until(sql, lambda rows: _turns_told(rows) >= ended - removed, 20)
        assert _turns_told(told) <= ended


def _turns_told(rows: list[tuple[Any, ...]]) -> int:
    return sum(int(orjson.loads(row[0])["turns"]) for row in rows)


def turn_id(agent: str, message_id: str) -> str:
    return turn_of(f"agent_{agent}", message_id)
