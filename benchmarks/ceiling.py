"""The store by itself: the same writer, the same statements and rows as turns have, and nothing around it.

What turns a second would be if gate, host, guard and sender cost nothing. Each of the turns in flight hands its
next job over when the last one is durable, so that the writer groups them as it does for the gate.
"""

import asyncio
import itertools
import threading
import time
from typing import Any

import orjson

from benchmarks.timing import IN_FLIGHT
from controlplane.store import statements as sql
from controlplane.store import usage
from controlplane.store.committer import Committer, Job

HOST, HOUR, MICRO, DIGEST = "ceiling", 498_822, 1_000_000, "sha256:" + "0" * 64
BODY = orjson.dumps(
    {
        "specversion": "1.0",
        "id": "a" * 24,
        "source": "/operators/bench",
        "type": "steward.message",
        "time": "2026-01-01T00:00:00Z",
        "data": {"effects": 9, "path": "/tmp/bench-12345678/notes"},
        "replyto": "a" * 24,
    }
).decode()
INTENT = '{"arguments":{"path":"/tmp/bench-12345678/notes","text":"x"},"connection":null,"effect":"notes.again"}'
VERDICT = '{"outcome":"allow","rules":["grant"],"features":{"grant":{"known":true,"value":1}}}'
AGENT = (
    "INSERT INTO agent (uid, namespace, name, generation, epoch, version, stopped, changed_at, owner, state)"
    " VALUES (?, 'elsewhere', ?, 1, 1, 0, 0, 0, ?, '{}')"
)


class Turns:
    """One agent's turns, one after the other, as jobs."""

    def __init__(self, agent: str, effects: int, owner: "Ceiling") -> None:
        self._agent = agent
        self._effects = effects
        self._owner = owner
        self._version = 0
        self._jobs = iter(())

    def go_on(self, outcome: str = "ok", detail: str = "") -> None:
        """The next job; called by the writer when the last one is durable."""
        self._owner.check(outcome, detail)
        job = next(self._jobs, None)
        if job is None:
            if self._version:
                self._owner.done += 1
            if self._owner.over():
                return
            self._jobs = self._turn(f"{self._agent}-{next(self._owner.count)}")
            self._version += 1
            job = next(self._jobs)
        lane, rows = job
        self._owner.committer.submit(Job(rows, self.go_on, lane))

    def _turn(self, it: str) -> Any:
        now, agent, version = time.time(), self._agent, self._version - 1
        yield 1, [(sql.PUT, (agent, it, "message", BODY, now, it), -1),
                  (sql.AWAIT_OPERATOR, (it, f"default/{agent}", agent, now, now + 60), -1)]  # fmt: skip
        ended = ("committed", 1, 1, now, 1000, self._effects, DIGEST, None, it, 0)
        opened = (sql.TURN_OPEN, self._row(it, now, "running" if self._effects else "committed"), 1)
        for n in range(self._effects):
            yield 0, [(sql.FENCE, (now, agent, 1, HOST), 1), *([] if n else [opened]), self._intent(it, n, now)]
            yield 0, [(sql.RECEIPT, ("succeeded", '{"noted":"x"}', now, it, "0", n), 1),
                      (usage.ADD, ("default", agent, HOUR, "notes.again", "", "noted", "", "", MICRO), 1),
                      (usage.ADD_EFFECT, ("default", agent, HOUR, "notes.again", "", "", MICRO, 9, 9), 1)]  # fmt: skip
        yield 0, [
            (sql.COMMIT, ("{}", None, DIGEST, 1, now, agent, 1, HOST, version), 1),
            (usage.ADD_TURN, ("default", agent, HOUR, "", "", "", MICRO, 1000, 1000), 1),
            (sql.TURN_END, ended, 1) if self._effects else opened,
            (sql.LATE_EVENT, (now, "default", agent, it, "{}", it), -1),
            (sql.RESOLVE_OPERATOR, ("answered", "1", now, it), -1),
            (sql.CONSUME, (agent, it), 1),
        ]  # fmt: skip

    def _row(self, it: str, now: float, outcome: str) -> tuple[Any, ...]:
        ended = None if self._effects else now
        return (it, self._agent, it, "message", BODY, outcome, 1, 1, DIGEST, now, ended, 1000, 0, DIGEST, None, None)

    def _intent(self, it: str, n: int, now: float) -> Any:
        return sql.RECORD, (it, "0", n, "effect", INTENT, VERDICT, None, None, now, now + 30, None, None), 1


class Ceiling:
    """So many turns in flight, for some seconds."""

    def __init__(self, url: str, seconds: float) -> None:
        self.committer = Committer(url)
        self.count = itertools.count()
        self.done = 0
        self._until = time.perf_counter() + seconds
        self._open = IN_FLIGHT
        self._ended = threading.Event()
        self._fault = ""

    def check(self, outcome: str, detail: str) -> None:
        if outcome != "ok":
            self._fault = f"{outcome} {detail}"

    def over(self) -> bool:
        if time.perf_counter() < self._until and not self._fault:
            return False
        self._open -= 1
        if not self._open or self._fault:
            self._ended.set()
        return True

    def rate(self, effects: int) -> float:
        """Turns a second. Raises RuntimeError when the store did not take one."""
        agents = [f"ceiling-{effects}-{n}" for n in range(IN_FLIGHT)]  # that nobody runs, as rows
        self.committer.submit(Job([(AGENT, (it, it, HOST), 1) for it in agents], self.check))
        begun = time.perf_counter()
        self.committer.start()
        for agent in agents:
            Turns(agent, effects, self).go_on()
        self._ended.wait(120)
        took = time.perf_counter() - begun
        self.committer.stop()
        if self._fault:
            raise RuntimeError(self._fault)
        return self.done / took


async def measured(url: str, effects: int, seconds: float) -> float:
    """Turns a second on a database that no gate is at."""
    return await asyncio.to_thread(lambda: Ceiling(url, seconds).rate(effects))
