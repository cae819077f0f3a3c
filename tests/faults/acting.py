"""Carries a timetable out on a running gate: signals, faults at points, and what else befalls an installation."""

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

from schemas.problem import Refusal
from tests.faults.points import Arming
from tests.faults.test_crash_random import schedule
from tests.faults.timetable import Act
from tests.faults.traffic import Traffic
from tests.postgres import Postgres


class Acting:
    """One timetable on one gate; `done` says what was done, in order."""

    def __init__(self, traffic: Traffic, arming: Arming, server: Postgres | None, seed: int) -> None:
        self._traffic = traffic
        self._gate = traffic.gate
        self._arming = arming
        self._server = server
        self._chance = random.Random(f"{seed} points")
        self._lasting: set[asyncio.Task[None]] = set()
        self.done: list[str] = []

    def hands(self) -> dict[str, Callable[[Act], Awaitable[None]]]:
        """What is done for each kind of act."""
        return {
            "kill host": self._kill_host, "stop host": self._stop_host, "block host": self._block_host,
            "kill gate": self._kill_gate, "stop gate": self._stop_gate, "end gate": self._end_gate,
            "cut plane": self._cut_plane, "points": self._points, "say again": self._say_again,
            "ring again": self._ring_again, "move agent": self._move, "pause agent": self._pause,
            "lose answer": self._lose_answer, "restart database": self._restart_database,
        }  # fmt: skip

    async def run(self, acts: list[Act]) -> None:
        """Do each in its time, or as soon as those before it let it; then heal."""
        begun = time.monotonic()
        hands = self.hands()
        for act in acts:
            await asyncio.sleep(begun + act.at - time.monotonic())
            self.done.append(f"{time.monotonic() - begun:.2f} {act.what} {act.seconds} {act.whom}")
            await hands[act.what](act)
        await self._heal()

    async def _heal(self) -> None:
        """No fault any more, and whoever is stopped goes on."""
        self._arming.put()
        await asyncio.gather(*self._lasting)
        for process in [*self._gate.hosts, self._gate.gate]:
            if process is not None:
                process.send_signal(signal.SIGCONT)

    def _meanwhile(self, lasts: Any) -> None:
        task = asyncio.create_task(lasts)
        self._lasting.add(task)
        task.add_done_callback(self._lasting.discard)

    def _host(self, act: Act) -> Any:
        living = [it for it in self._gate.hosts if it.poll() is None]
        return living[act.whom % len(living)] if living else None

    async def _kill_host(self, act: Act) -> None:
        if host := self._host(act):
            host.kill()

    async def _stop_host(self, act: Act) -> None:
        if host := self._host(act):
            self._meanwhile(_stopped(host, act.seconds))

    async def _block_host(self, act: Act) -> None:
        self._meanwhile(self._traffic.block(act.whom, act.seconds))

    async def _kill_gate(self, act: Act) -> None:
        if self._gate.gate is not None:
            self._gate.gate.kill()

    async def _stop_gate(self, act: Act) -> None:
        if self._gate.gate is not None:
            self._meanwhile(_stopped(self._gate.gate, act.seconds))

    async def _end_gate(self, act: Act) -> None:
        if self._gate.gate is not None:
            self._gate.gate.send_signal(signal.SIGTERM)

    async def _cut_plane(self, act: Act) -> None:
        """The calls that were on their way are made again, over the next connection."""
        wire = self._gate.client._wire
        if wire is not None:
            wire.close()

    async def _points(self, act: Act) -> None:
        self._arming.put(*schedule(self._chance, full=self._server is None))

    async def _say_again(self, act: Act) -> None:
        self._meanwhile(self._traffic.again(act.whom))

    async def _ring_again(self, act: Act) -> None:
        async def ring() -> None:
            for n in range(6):
                with contextlib.suppress(Refusal):
                    await self._gate.client.control("reload", self._traffic.agent_at(act.whom + n // 2), {})

        self._meanwhile(ring())

    async def _move(self, act: Act) -> None:
        self._meanwhile(self._traffic.move(act.whom))

    async def _pause(self, act: Act) -> None:
        self._meanwhile(self._traffic.pause(act.whom, act.seconds))

    async def _lose_answer(self, act: Act) -> None:
        far = self._traffic.fars[act.whom % len(self._traffic.fars)]
        far.behave.append("lost")

    async def _restart_database(self, act: Act) -> None:
        assert self._server is not None
        self._meanwhile(asyncio.to_thread(self._server.restart, ("fast", "immediate")[act.whom % 2]))
        await asyncio.gather(*self._lasting)  # nothing else befalls it meanwhile: there is one of it


async def _stopped(process: Any, seconds: float) -> None:
    process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(seconds)
    process.send_signal(signal.SIGCONT)
