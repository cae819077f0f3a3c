"""A workload that does not wait for the faults, with known answers, and the history that is found of it afterwards.

Every agent is suspended as soon as it may be, so that each message wakes one. Senders say a thing until it was
acknowledged, and only then the next.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from sqlalchemy.exc import SQLAlchemyError

from controlplane.store.states import whole
from schemas.problem import Refusal
from tests.faults.checking import Answer, Effect, History, Pile, Stream, Turn
from tests.faults.history import UNQUIET
from tests.faults.points import gone
from tests.gate.counting import Counting
from tests.gate.far import HONOURED, IGNORED, connected, grants, request
from tests.gate.running import RunningGate
from tests.gate.zoo import SOURCE

ACCOUNTS = 4
SENDERS = 3
MORE = """

class Tardy(Agent):
    async def on_message(self, turn, envelope):
        await turn.sleep(envelope.data[1])
        return envelope.data[0]


class Impatient(Agent):
    state: Counts

    async def on_message(self, turn, envelope):
        from schemas.problem import Refusal
        try:
            said = (await turn.ask("tardy", envelope.data, deadline_s=0.15)).data
        except Refusal as refusal:
            said = refusal.problem.reason
        self.state.got.append([envelope.data[0], said])
        return said


class Petitioner(Agent):
    state: Counts

    async def on_message(self, turn, envelope):
        turn.request("tardy", envelope.data, deadline_s=0.15)

    async def on_reply(self, turn, reply):
        self.state.got.append(reply.causationid)


class Bell(Agent):
    state: Counts

    async def on_message(self, turn, envelope):
        turn.timer(f"ring-{envelope.data}", after_s=0.05, data=envelope.data)

    async def on_timer(self, turn, timer):
        self.state.got.append(timer.data)


class Crier(Agent):
    async def on_message(self, turn, envelope):
        turn.publish("news", ["crier", envelope.data])


class Parents(Agent):
    async def on_message(self, turn, envelope):
        turn.spawn(f"child-{envelope.data}", entrypoint="zoo:Echo")
"""
OWNED_SQLITE = (
    "CREATE TABLE owned (at INTEGER PRIMARY KEY AUTOINCREMENT, agent TEXT, epoch INTEGER, owner TEXT);",
    "CREATE TRIGGER owned AFTER UPDATE ON agent WHEN NEW.owner IS NOT NULL"
    " AND (OLD.owner IS NOT NEW.owner OR OLD.epoch <> NEW.epoch)"
    " BEGIN INSERT INTO owned (agent, epoch, owner) VALUES (NEW.uid, NEW.epoch, NEW.owner); END;",
)
OWNED_POSTGRESQL = (
    "CREATE TABLE owned (at BIGSERIAL PRIMARY KEY, agent TEXT, epoch BIGINT, owner TEXT)",
    "CREATE FUNCTION owned() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
    " INSERT INTO owned (agent, epoch, owner) VALUES (NEW.uid, NEW.epoch, NEW.owner); RETURN NULL; END $$",
    "CREATE TRIGGER owned AFTER UPDATE ON agent FOR EACH ROW WHEN (NEW.owner IS NOT NULL"
    " AND (OLD.owner IS DISTINCT FROM NEW.owner OR OLD.epoch <> NEW.epoch)) EXECUTE FUNCTION owned()",
)


async def heard(say: Callable[[], Awaitable[Any]], timeout_s: float = 60) -> Any:
    """Say or read it until it is answered, whatever is away meanwhile."""
    limit = time.monotonic() + timeout_s
    while True:
        try:
            return await say()
        except (Refusal, SQLAlchemyError, OSError):
            if time.monotonic() > limit:
                raise
            await asyncio.sleep(0.03)


class Traffic:
    """Agents, those who speak to them, and what was acknowledged."""

    def __init__(self, gate: RunningGate, keyed: Counting, plain: Counting, seed: int) -> None:
        self.gate = gate
        self.fars = (keyed, plain)
        self._chance = random.Random(f"{seed} traffic")
        self._agents: list[str] = []
        self._moved: list[str] = []
        self._said: list[tuple[str, Any, str, float]] = []  # name, data, message, deadline
        self._balances = dict.fromkeys([f"account-{n}" for n in range(ACCOUNTS)], 0)
        self._counted: dict[str, list[int]] = {f"sender-{n}": [] for n in range(SENDERS)}
        self._news: dict[str, list[int]] = {"crier": [], "town": []}
        self._asked: dict[str, tuple[str, int]] = {}  # by await: who, and which
        self._done: Counter[str] = Counter()
        self.rest_s = 60.0

    async def begin(self) -> "Traffic":
        gate, code = self.gate, await self.gate.code(SOURCE + MORE)
        await connected(gate, "keyed", self.fars[0], HONOURED, limits={"timeout_s": 2})
        await connected(gate, "plain", self.fars[1], IGNORED, limits={"timeout_s": 2})
        cast = {**dict.fromkeys(self._balances, "Account"), "asker-0": "Impatient", "asker-1": "Impatient"}
        for name in ("counter", "ledger", "tardy", "petitioner", "bell", "crier", "parents"):
            cast[name] = name.capitalize()
        for name, cls in cast.items():
            self._agents.append(await gate.agent(name, code, cls, suspend_after_ms=0))
        self._moved = list(self._agents)
        for name in ("keyed", "plain"):
            self._agents.append(await gate.agent(f"noter-{name}", code, "Noter", suspend_after_ms=0, **grants(name)))
        for n in range(2):
            self._agents.append(await gate.agent(f"slow-{n}", code, "Slow", suspend_after_ms=0))
        members = [await gate.agent(f"member-{n}", code, "Member", suspend_after_ms=0) for n in range(2)]
        self._agents += members
        await gate.channel("news", *members)
        return self

    async def go_on(self, until: Callable[[], bool]) -> None:
        """All who speak, each at its own pace, until it is over."""
        speakers: list[Callable[[int], Awaitable[None]]] = [
            self._transfer, self._transfer, self._impatient(0), self._impatient(1), self._petition, self._bell,
            self._crier, self._town, self._effect("keyed"), self._effect("plain"), self._child,
            *[self._count(name) for name in self._counted],
        ]  # fmt: skip

        async def speak(which: int, speaker: Callable[[int], Awaitable[None]]) -> None:
            n = 0
            while not until():
                await speaker(n * len(speakers) + which)
                n += 1
                await asyncio.sleep(self._chance.uniform(0.0, 0.25))

        async with asyncio.TaskGroup() as group:
            for which, speaker in enumerate(speakers):
                group.create_task(speak(which, speaker))

    # Who speaks. Each `n` is spoken of once.

    async def _send(self, name: str, data: Any, message_id: str, ask_until: float = 0.0) -> None:
        await heard(lambda: self.gate.send(name, data, message_id, ask_until))
        self._said.append((name, data, message_id, ask_until))

    async def _ask(self, name: str, data: Any, message_id: str) -> Any:
        await self._send(name, data, message_id, time.time() + 600)
        sql = "SELECT result FROM awaiting WHERE await_id = :it AND outcome IS NOT NULL"
        limit = time.monotonic() + 90
        while not (rows := await heard(lambda: self.gate.rows(sql, it=message_id))):
            if time.monotonic() > limit:  # the history says so
                return None
            await self.gate.client.answered(message_id, 0.1)
        return orjson.loads(rows[0][0])

    async def _transfer(self, n: int) -> None:
        source, target = self._chance.sample(sorted(self._balances), 2)
        self._balances[source] -= n
        self._balances[target] += n
        await self._send(source, {"to": target, "amount": n}, f"t{n}")

    def _count(self, sender: str) -> Callable[[int], Awaitable[None]]:
        async def count(_: int) -> None:
            sent = self._counted[sender]
            await self._send("counter", [sender, len(sent)], f"{sender}-{len(sent)}")
            sent.append(len(sent))

        return count

    def _impatient(self, which: int) -> Callable[[int], Awaitable[None]]:
        async def ask(n: int) -> None:
            self._asked[f"q{n}"] = (f"asker-{which}", n)
            await self._ask(f"asker-{which}", [n, self._chance.choice([0.01, 0.14, 0.3])], f"q{n}")

        return ask

    async def _petition(self, n: int) -> None:
        await self._send("petitioner", [n, self._chance.choice([0.01, 0.14, 0.3])], f"r{n}")
        self._done["petitions"] += 1

    async def _bell(self, n: int) -> None:
        await self._send("bell", n, f"b{n}")

    async def _crier(self, n: int) -> None:
        await self._send("crier", n, f"p{n}")
        self._news["crier"].append(n)

    async def _town(self, n: int) -> None:
        body = orjson.dumps({
            "specversion": "1.0", "id": f"c{n}", "source": "/operators/test", "type": "steward.message",
            "time": "2026-01-01T00:00:00Z", "data": ["town", n],
        })  # fmt: skip
        await heard(lambda: self.gate.client.publish_channel("default", "news", f"c{n}", body))
        self._news["town"].append(n)

    def _effect(self, connection: str) -> Callable[[int], Awaitable[None]]:
        async def order(n: int) -> None:
            await self._ask(f"noter-{connection}", request(connection, json={"order": n}), f"e{n}")

        return order

    async def _child(self, n: int) -> None:
        await self._send("parents", n, f"k{n}")
        self._done["children"] += 1
        await asyncio.sleep(1.0)

    # What befalls agents

    def agent_at(self, whom: int) -> str:
        return self._agents[whom % len(self._agents)]

    async def block(self, whom: int, seconds: float) -> None:
        """A handler that does not come back to its loop for so long."""
        self._done["blocked"] += 1
        await self._send(f"slow-{whom % 2}", seconds, f"s{self._done['blocked']}")

    async def again(self, whom: int) -> None:
        """What was acknowledged is said once more, and changes nothing."""
        if self._said:
            name, data, message_id, ask_until = self._said[whom % len(self._said)]
            await heard(lambda: self.gate.send(name, data, message_id, ask_until))

    async def move(self, whom: int) -> None:
        hosts = await heard(lambda: self.gate.rows("SELECT host_id FROM host WHERE ended_at IS NULL"))
        asked = {"principal": "test", "to_host": hosts[whom % len(hosts)][0] if hosts else None, "warm": bool(whom % 2)}
        for to in (asked, {**asked, "to_host": None}):
            try:
                await self.gate.client.control("migrate", self.agent_at(whom), to)
            except Refusal:  # it has just gone, or the gate has
                return

    async def pause(self, whom: int, seconds: float) -> None:
        uid = self.agent_at(whom)
        await heard(lambda: self.gate.client.control("stop", uid, {"principal": "test"}))
        await asyncio.sleep(seconds)
        await heard(lambda: self.gate.client.control("wake", uid, {"principal": "test"}))

    # What is found

    async def rest(self) -> list[str]:
        """Wait until nothing is left to do; what is left all the same."""
        limit = time.monotonic() + self.rest_s
        while True:
            left = [row[0] for row in await self._rows(UNQUIET)]
            if not left or time.monotonic() > limit:
                return left
            await asyncio.sleep(0.05)

    async def _rows(self, sql: str) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = await heard(lambda: self.gate.rows(sql))
        return found

    async def _states(self) -> dict[str, Any]:
        """By agent; those of long runs are in pieces."""
        pieces: dict[str, list[tuple[str, bytes]]] = {}
        for agent, name, body in await self._rows("SELECT agent, hash, body FROM state_chunk"):
            pieces.setdefault(agent, []).append((name, bytes(body)))
        return {
            name: orjson.loads(state or (whole(chunks, pieces[uid]) if chunks else "{}"))
            for uid, name, state, chunks in await self._rows("SELECT uid, name, state, chunks FROM agent")
        }

    async def history(self) -> History:
        """When everything has come to rest, or had its time."""
        unended = await self.rest()
        orphans = await self._orphans()
        turns = await self._rows("SELECT agent, message_id, outcome, epoch, problem FROM turn")
        states = await self._states()
        got = {name: state.get("got", []) for name, state in states.items()}
        streams = [Stream(it, self._counted, _pairs(got[it])) for it in ("counter", "ledger")]
        streams += [Stream(it, self._news, _pairs(got[it])) for it in ("member-0", "member-1")]
        requests = [row[0] for row in await self._rows("SELECT await_id FROM awaiting WHERE kind = 'request'")]
        return History(
            acknowledged=[(f"agent_{name}", message_id) for name, _, message_id, _ in self._said],
            turns=[Turn(*row) for row in turns],
            epochs=dict(await self._rows("SELECT uid, epoch FROM agent")),  # type: ignore[arg-type]
            owners=await self._rows("SELECT agent, epoch, owner FROM owned ORDER BY at"),  # type: ignore[arg-type]
            balances={name: (it, states[name].get("seen", 0)) for name, it in self._balances.items()},
            streams=streams,
            piles=[
                Pile("bell", [it for _, it, _, _ in self._of("bell")], got["bell"]),
                Pile("petitioner", requests, got["petitioner"]),
                Pile("petitions", list(range(self._done["petitions"])), list(range(len(requests)))),
                Pile("parents", [f"child-{it}" for _, it, _, _ in self._of("parents")], await self._children()),
            ],
            answers=[it async for it in self._answers(got)],
            effects=[it async for it in self._effects(got)],
            unended=unended,
            orphans=orphans,
        )

    def _of(self, name: str) -> list[tuple[str, Any, str, float]]:
        return [it for it in self._said if it[0] == name]

    async def _children(self) -> list[str]:
        """Those who are there whole: declared, running, and started once."""
        sql = (
            "SELECT r.name FROM resource r JOIN agent a ON a.uid = r.uid JOIN turn t ON t.agent = a.uid"
            " WHERE r.owner = 'agent_parents' AND r.deleted_at IS NULL AND t.\"trigger\" = 'start'"
        )
        return [row[0] for row in await self._rows(sql)]

    async def _answers(self, got: dict[str, Any]) -> Any:
        rows = await self._rows("SELECT await_id, outcome, result FROM awaiting WHERE kind = 'operator'")
        found = {it: (outcome, result) for it, outcome, result in rows}
        for await_id, (who, n) in self._asked.items():
            outcome, result = found.get(await_id, (None, None))
            kept = [said for k, said in got[who] if k == n]
            yield Answer(await_id, [n, "DEADLINE"], outcome, orjson.loads(result) if result else None, kept)

    async def _effects(self, got: dict[str, Any]) -> Any:
        told = {
            row[0]: row[1] for row in await self._rows("SELECT await_id, result FROM awaiting WHERE kind='operator'")
        }
        rows = await self._rows(
            "SELECT t.message_id, j.outcome FROM journal j JOIN turn t ON t.turn_id = j.turn_id WHERE j.kind = 'effect'"
        )
        keyed, plain = (_orders(far) for far in self.fars)
        for message_id, outcome in rows:
            n = int(message_id[1:])
            said = orjson.loads(told.get(message_id) or "null")
            yield Effect(message_id, said, outcome, keyed[n] + plain[n])

    async def _orphans(self) -> list[str]:
        """Owned by nobody who lives, and hosts that have ended and live: each is given the time of two leases."""
        owned = (
            "SELECT a.name, a.owner FROM agent a LEFT JOIN host h ON h.host_id = a.owner"
            " WHERE a.owner IS NOT NULL AND (h.host_id IS NULL OR h.ended_at IS NOT NULL)"
        )
        limit = time.monotonic() + 15
        while True:
            found = [f"{name} is owned by {owner}, who has ended" for name, owner in await self._rows(owned)]
            known = {row[0] for row in await self._rows("SELECT pid FROM host WHERE ended_at IS NULL")}
            found += [f"process {it.pid} is no host any more" for it in self.gate.hosts
                      if it.poll() is None and not gone(it.pid) and it.pid not in known]  # fmt: skip
            if not found or time.monotonic() > limit:
                return found
            await asyncio.sleep(0.1)


def _pairs(got: list[Any]) -> list[tuple[str, Any]]:
    return [(who, what) for who, what in got]


def _orders(far: Counting) -> Counter[int]:
    """How often each order was carried out: once a key where keys are honoured, else as often as it came."""
    if far.honours:
        by_key = {it.headers["idempotency-key"]: orjson.loads(it.body)["order"] for it in far.asked}
        return Counter(by_key[key] for key in far.acts)
    return Counter(orjson.loads(it.body)["order"] for it in far.asked)


def watch_owners(url: str) -> None:
    """Let the database keep who owned what in which epoch: a look from time to time would miss most."""
    if url.startswith("sqlite"):
        import sqlite3

        with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
            for sql in OWNED_SQLITE:
                connection.execute(sql)
        return
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        for sql in OWNED_POSTGRESQL:
            connection.execute(sql)
