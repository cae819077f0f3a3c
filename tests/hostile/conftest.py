"""One installation that is attacked by everybody, with an agent that lives in it and somebody who uses it."""

import gc
import resource
import threading
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.end_to_end.agents import agent
from tests.hostile.bystander import Bystander
from tests.stack import Stack

FILES_MIN = 8192  # sockets of the attackers
QUIET_S = 2.0
HEAD_S_MAX = 4.0
BODY_S_MAX = 6.0
UNSENT_BYTES_MAX = 64 * 1024 * 1024
SAMPLED, SAMPLE_S = ("plane", "gate"), 0.05
ANSWER_S_MAX = 6.0
BOUNDS = {
    "head_s_max": HEAD_S_MAX,
    "body_s_max": BODY_S_MAX,
    "answer_s_max": ANSWER_S_MAX,
    "unsent_bytes_max": UNSENT_BYTES_MAX,
}
TOKENS = {"bystander": "operator", "attacker": "operator", "accomplice": "operator"}


class Sampled:
    """What processes held at most while somebody was at work, looked at all the while."""

    def __init__(self, attacked: "Attacked") -> None:
        self._attacked = attacked
        self._before = {name: attacked.uss(name) for name in SAMPLED}
        self._most = dict(self._before)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Sampled":
        self._thread.start()
        return self

    def __exit__(self, *failed: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(SAMPLE_S):
            self._look()

    def _look(self) -> None:
        for name in SAMPLED:
            self._most[name] = max(self._most[name], self._attacked.uss(name))

    def grown(self, name: str = "plane") -> int:
        """By how many bytes, at the highest."""
        self._look()
        return self._most[name] - self._before[name]


class Attacked:
    """The installation, its tokens, and what its processes hold."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.url = stack.url
        self.tokens = {"admin": stack.token}
        for name, role in TOKENS.items():
            made = stack.call("tokens.create", principal=name, role=role, namespaces=["default"])
            self.tokens[name] = made["token"]
        stack.apply(agent("echo", "Echo"))
        views = stack.call("system.status")["processes"]
        self._processes = {it["name"]: psutil.Process(it["pid"]) for it in views if it["name"] in ("plane", "gate")}
        with Bystander(self.url, self.tokens["bystander"]) as self.quiet:
            time.sleep(QUIET_S)
        self._files_quiet = self.files()

    def calm(self) -> None:
        """Wait until the connections of whoever came before are gone."""
        assert self.settled(self.files, self._files_quiet + 16) <= self._files_quiet + 16

    def sampled(self) -> Sampled:
        return Sampled(self)

    def bystander(self) -> Bystander:
        return Bystander(self.url, self.tokens["bystander"], self.quiet)

    def uss(self, name: str = "plane") -> int:
        """Memory that is the process's own."""
        return int(self._processes[name].memory_full_info().uss)

    def files(self, name: str = "plane") -> int:
        return self._processes[name].num_fds()

    def settled(self, read: Any, limit: float, seconds_max: float = 60) -> Any:
        """What is read, once it is at the limit or below, or when the time is over."""
        until = time.monotonic() + seconds_max
        while (found := read()) > limit and time.monotonic() < until:
            time.sleep(0.2)
        return found


@pytest.fixture(scope="package")
def attacked() -> Iterator[Attacked]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MIN if hard == resource.RLIM_INFINITY else min(FILES_MIN, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    with Stack(**BOUNDS) as stack:
        yield Attacked(stack)
    gc.collect()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(autouse=True)
def _calm(attacked: Attacked) -> None:
    attacked.calm()
