"""The seeded schedule on a whole installation: plane, gate, hosts and the parts of Ray die or stand still. Soak only.

The checker is that of `test_schedule.py`; `STEWARD_SEED` and `STEWARD_SCHEDULE_S` repeat a run.
"""

import contextlib
import os
import random
import signal
import threading
import time
from typing import Any

import httpx
import psutil
import pytest

from controlplane.supervision.processes import Record
from tests.conftest import SOAK
from tests.end_to_end.test_living import until
from tests.faults.checking import History, Stream, broken
from tests.faults.points import SEED
from tests.gate.zoo import SOURCE
from tests.stack import Stack

pytestmark = [pytest.mark.soak, pytest.mark.skipif(not SOAK, reason="minutes: in a soak only")]
SCHEDULE_S = float(os.environ.get("STEWARD_SCHEDULE_S", "600"))
SENDERS = ACCOUNTS = 3
ACTS = {"kill plane": 2, "kill gate": 3, "kill host": 4, "stop plane": 1, "stop gate": 2, "stop host": 3,
        "kill gcs_server": 1, "kill raylet": 1}  # fmt: skip


class Speaker(threading.Thread):
    """Says each thing under an id of its own until it was acknowledged, and only then the next."""

    def __init__(self, stack: Stack, name: str, ended: threading.Event) -> None:
        super().__init__(name=name)
        self._stack = stack
        self._ended = ended
        self.counted: list[int] = []
        self.moved = dict.fromkeys([f"account-{n}" for n in range(ACCOUNTS)], 0)

    def run(self) -> None:
        chance = random.Random(f"{SEED} {self.name}")
        while not self._ended.wait(chance.uniform(0.05, 0.3)):
            n = len(self.counted)
            self._say("counter", [self.name, n], f"{self.name}-{n}")
            self.counted.append(n)
            source, target = chance.sample(sorted(self.moved), 2)
            self._say(source, {"to": target, "amount": n}, f"{self.name}-t{n}")
            self.moved[source] -= n
            self.moved[target] += n

    def _say(self, name: str, data: Any, request_id: str) -> None:
        body = {"name": name, "data": data, "request_id": request_id}
        limit = time.monotonic() + 180
        while time.monotonic() < limit:
            with contextlib.suppress(httpx.HTTPError), self._stack.rest() as client:
                answer = client.post("/v1/operations/agents.send/call", json=body, timeout=10)
                if answer.status_code == 200:
                    return
            time.sleep(0.1)
        raise AssertionError(f"{request_id} was not heard for three minutes")


def _victim(stack: Stack, what: str, chance: random.Random) -> int | None:
    """The pid of whom it befalls; None when it is away just now."""
    if what == "plane":
        return stack.pid
    if what == "host":
        with contextlib.suppress(AssertionError, httpx.HTTPError):
            hosts = [it["pid"] for it in stack.call("hosts.list")["items"] if it["state"] == "serving"]
            return chance.choice(hosts) if hosts else None
        return None
    found = Record(stack.data).find("gate" if what == "gate" else "ray")
    if found is None or what == "gate":
        return found and found.pid
    with contextlib.suppress(psutil.Error, StopIteration):
        return next(it.pid for it in psutil.Process(found.pid).children(recursive=True) if it.name() == what)
    return None


def _befall(stack: Stack, act: str, chance: random.Random) -> None:
    verb, _, what = act.partition(" ")
    pid = _victim(stack, what, chance)
    if pid is None:
        return
    with contextlib.suppress(ProcessLookupError):
        if verb == "stop":
            os.kill(pid, signal.SIGSTOP)
            time.sleep(chance.uniform(0.2, 7.0))
            os.kill(pid, signal.SIGCONT)
        elif what == "plane":
            stack.kill()
            stack.up()
        else:
            os.kill(pid, signal.SIGKILL)


def _history(stack: Stack, speakers: list[Speaker]) -> History:
    def inspected(name: str) -> dict[str, Any]:
        found: dict[str, Any] = stack.call("agents.inspect", name=name)
        return found

    def state(name: str) -> dict[str, Any]:
        return inspected(name)["state"] or {}

    sent: dict[str, list[Any]] = {it.name: it.counted for it in speakers}
    total = sum(len(it.counted) for it in speakers)
    with contextlib.suppress(AssertionError):  # what is missing then is what the checker says
        until(lambda: len(state("ledger").get("got", [])) >= total, 120)
    wanted = {name: sum(it.moved[name] for it in speakers) for name in speakers[0].moved}
    with contextlib.suppress(AssertionError):
        until(lambda: all(state(name).get("seen", 0) == it for name, it in wanted.items()), 60)
    streams = [Stream(it, sent, [(who, n) for who, n in state(it).get("got", [])]) for it in ("counter", "ledger")]
    letters = [it for name in ("counter", "ledger", *wanted) for it in inspected(name)["dead_letters"]]
    return History(
        balances={name: (it, state(name).get("seen", 0)) for name, it in wanted.items()},
        streams=streams,
        unended=[f"dead letter {it}" for it in letters],
    )


def _agent(name: str, cls: str) -> dict[str, Any]:
    spec = {"code": {"files": {"zoo.py": SOURCE}}, "entrypoint": f"zoo:{cls}", "suspend_after_ms": 0}
    return {"kind": "Agent", "metadata": {"name": name}, "spec": spec}


def test_the_history_of_an_installation_is_that_of_no_fault(quick_url: str) -> None:
    """Whatever of it dies or stands still, in any order."""
    chance, done = random.Random(f"{SEED} stack"), []
    with Stack(None if quick_url.startswith("sqlite") else quick_url, lease_s=3) as stack:
        cast = {"counter": "Counter", "ledger": "Ledger", **{f"account-{n}": "Account" for n in range(ACCOUNTS)}}
        stack.apply(*[_agent(name, cls) for name, cls in cast.items()])
        ended = threading.Event()
        speakers = [Speaker(stack, f"sender-{n}", ended) for n in range(SENDERS)]
        for it in speakers:
            it.start()
        end = time.monotonic() + SCHEDULE_S
        try:
            while time.monotonic() < end:
                time.sleep(chance.uniform(0.5, 4.0))
                done.append(chance.choices(list(ACTS), list(ACTS.values()))[0])
                _befall(stack, done[-1], chance)
        finally:
            ended.set()
            for it in speakers:
                it.join(200)
        until(lambda: stack.call("system.status")["ready"], 90)
        found = broken(_history(stack, speakers))
        assert not found, "\n".join([f"STEWARD_SEED={SEED}", *found, *done, stack.output()[-6000:]])
        assert all(it.counted for it in speakers)
        stack.stop()
        assert stack.leftovers() == []
