"""Publishers, workers of a queue who come and go, and readers of a broadcast: with known answers, under any fault.

Who publishes says a thing until it was acknowledged, and only then the next of its key. Workers are slow at times:
they park, and hold their key meanwhile; they leave with work in their inbox, and come back. Readers join and leave
in turns of their own.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from controlplane.mesh import membership
from controlplane.store.unit import Unit
from schemas.posting import Placed
from tests.faults.checking import History, Hold, Stream, Turn
from tests.faults.traffic import Traffic, heard
from tests.gate.zoo import SOURCE

BACKLOG = "SELECT (SELECT COUNT(*) FROM inbox) + (SELECT COUNT(*) FROM queued)"
BACKLOG_MAX, LOOK_S = 300, 0.25
KEYS, WORKERS, READERS = ("a", "b", "c"), 4, ("reader-0", "reader-1")
MORE = """

class Worker(Agent):
    state: Counts

    async def on_message(self, turn, envelope):
        key, n = envelope.data
        if n % 3 == 0:
            await turn.sleep(0.02 * (n % 5))
        self.state.got.append([key, n])


class Agency(Agent):
    async def on_message(self, turn, envelope):
        turn.publish("jobs", ["agency", envelope.data], key="agency", priority=envelope.data % 3)
        turn.publish("news", ["agency", envelope.data], key="agency")


class Reader(Agent):
    state: Counts

    async def on_message(self, turn, envelope):
        if envelope.data == "come":
            turn.join("news")
        elif envelope.data == "go":
            turn.leave("news")
        else:
            self.state.got.append(envelope.data)
"""


class MeshTraffic(Traffic):
    """The traffic of one queue and one broadcast."""

    async def begin(self) -> "MeshTraffic":
        gate, code = self.gate, await self.gate.code(SOURCE + MORE)
        self._jobs: dict[str, list[int]] = {key: [] for key in (*KEYS, "agency")}
        self._told: dict[str, list[int]] = {key: [] for key in ("town", "agency")}
        workers = [await gate.agent(f"worker-{n}", code, "Worker", suspend_after_ms=0) for n in range(WORKERS)]
        readers = [await gate.agent(name, code, "Reader", suspend_after_ms=0) for name in READERS]
        others = [await gate.agent("agency", code, "Agency", suspend_after_ms=0)]
        others.append(await gate.agent("visitor", code, "Reader", suspend_after_ms=0))
        for n in range(2):
            await gate.agent(f"slow-{n}", code, "Slow", suspend_after_ms=0)
        self._agents = [*workers, *readers, *others]
        await gate.channel("jobs", *workers, mode="queue", in_flight_max=2)
        await gate.channel("news", *readers)
        return self

    async def go_on(self, until: Callable[[], bool]) -> None:
        """Nobody speaks while too much is left to do: a backlog must not grow with the length of a run."""
        speakers: list[Callable[[int], Awaitable[None]]] = [
            *[self._job(key) for key in KEYS], self._agency, self._town, self._churn, self._visit,
        ]  # fmt: skip

        on = asyncio.Event()

        async def listen() -> None:
            while not until():
                behind = (await self._rows(BACKLOG))[0][0] > BACKLOG_MAX
                on.clear() if behind else on.set()
                await asyncio.sleep(LOOK_S)
            on.set()

        async def speak(speaker: Callable[[int], Awaitable[None]]) -> None:
            n = 0
            while not until():
                await on.wait()
                await speaker(n)
                n += 1
                await asyncio.sleep(self._chance.uniform(0.0, 0.1))

        async with asyncio.TaskGroup() as group:
            group.create_task(listen())
            for speaker in speakers:
                group.create_task(speak(speaker))

    async def _publish(self, channel: str, message_id: str, data: Any, how: Placed) -> None:
        body = orjson.dumps({
            "specversion": "1.0", "id": message_id, "source": "/operators/test", "type": "steward.message",
            "subject": f"default/{channel}", "time": "2026-01-01T00:00:00Z", "data": data, "partitionkey": how.key,
        })  # fmt: skip
        for _ in range(1 + (self._chance.random() < 0.2)):  # some say it again
            await heard(lambda: self.gate.client.publish_channel("default", channel, message_id, body, how))

    def _job(self, key: str) -> Callable[[int], Awaitable[None]]:
        async def job(n: int) -> None:
            how = Placed(key, self._chance.choice((0, 0, 5)))
            await self._publish("jobs", f"job-{key}-{n}", [key, n], how)
            self._jobs[key].append(n)

        return job

    async def _agency(self, n: int) -> None:
        await self._send("agency", n, f"agency-{n}")
        self._jobs["agency"].append(n)
        self._told["agency"].append(n)

    async def _town(self, n: int) -> None:
        await self._publish("news", f"town-{n}", ["town", n], Placed("town"))
        self._told["town"].append(n)

    async def _churn(self, n: int) -> None:
        """A worker leaves, with what it has, and comes back; there is always another."""
        who = n % (WORKERS - 1)
        member = membership.Member(f"agent_worker-{who}", f"worker-{who}", "default", "jobs")
        by = membership.By("test")
        await heard(lambda: self.gate.store.write(Unit().rows(membership.left_by(member, by, time.time()))))
        await asyncio.sleep(self._chance.uniform(0.0, 0.3))
        await heard(lambda: self.gate.store.write(Unit().rows(membership.joining(member, "now", by, time.time()))))
        await asyncio.sleep(0.3)

    async def _visit(self, n: int) -> None:
        await self._send("visitor", "come" if n % 2 == 0 else "go", f"visit-{n}")
        await asyncio.sleep(0.2)

    async def history(self) -> History:
        unended = await self.rest()
        orphans = await self._orphans()
        turns = await self._rows("SELECT agent, message_id, outcome, epoch, problem FROM turn")
        states = await self._states()
        shares = [tuple(it) for n in range(WORKERS) for it in states[f"worker-{n}"].get("got", [])]
        holds = [
            Hold(body["partitionkey"], body["data"][1], agent, began, ended)
            for agent, began, ended, body in await self._handled()
        ]
        by_end = [(it.key, it.what) for it in sorted(holds, key=lambda it: it.ended)]
        return History(
            acknowledged=[(f"agent_{name}", message_id) for name, _, message_id, _ in self._said],
            turns=[Turn(*row) for row in turns],
            epochs=dict(await self._rows("SELECT uid, epoch FROM agent")),  # type: ignore[arg-type]
            owners=await self._rows("SELECT agent, epoch, owner FROM owned ORDER BY at"),  # type: ignore[arg-type]
            streams=[
                Stream("all workers", self._jobs, by_end),
                *[Stream(name, self._told, _pairs(states[name].get("got", []))) for name in READERS],
            ],
            holds=holds,
            unended=unended + _doubled("a worker", shares) + _doubled("visitor", states["visitor"].get("got", [])),
            orphans=orphans,
        )

    async def _handled(self) -> list[tuple[str, float, float, Any]]:
        """The turns with jobs: whose, from when to when, and the message."""
        rows = await self._rows(
            "SELECT agent, started_at, finished_at, message FROM turn WHERE agent LIKE 'agent_worker-%'"
            " AND \"trigger\" = 'message' AND outcome = 'committed'"
        )
        return [(agent, began, ended, orjson.loads(message)) for agent, began, ended, message in rows]


def _pairs(got: list[Any]) -> list[tuple[str, Any]]:
    return [(who, what) for who, what in got]


def _doubled(who: str, got: list[Any]) -> list[str]:
    return [f"{who} did {it} {times} times" for it, times in Counter(map(repr, got)).items() if times > 1]
