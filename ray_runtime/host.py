"""A host: runs agents' code, and nothing else.

It holds no credential, no database, no key; its one way out is the gate's socket. Each agent has one
slot: the state it committed last, and the turn it is in. Turns of an agent are strictly serial, by
the gate's order; fencing is the gate's, so whatever a stale host sends changes nothing. When the gate
is lost, every coroutine and every state is forgotten, and the host says hello again with nothing in
hand. A host serves one namespace and one digest for good. `python -m ray_runtime.host` runs one as a
plain process; the Ray actor wraps the same class.
"""

import argparse
import asyncio
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from ray_runtime import stepping
from ray_runtime.code import Loaded, Package
from ray_runtime.connection import Connection
from ray_runtime.lease import GONE_S, LeaseThread
from ray_runtime.problems import problem
from ray_runtime.replaying import Replays
from ray_runtime.turn import Activation
from ray_runtime.workspace import Workspace
from schemas import faults
from schemas.base import canonical
from schemas.frames import Frame
from schemas.processes import PYTHON
from schemas.processes import started as process_started
from schemas.wire import (
    Bye,
    CodeFiles,
    CodeWanted,
    Evict,
    Failed,
    Hello,
    Receipt,
    Released,
    Resolved,
    Run,
    Specialise,
    ToHost,
    Welcome,
)

RESERVED = "STEWARD_RESERVED"
RETRY_FIRST_S = 0.002
AT_ONCE_S = 1.0  # a gate that ends a connection so soon does not want it yet
RETRY_MOST_S = 0.03  # a new gate is there after some 0.2 s, and a try costs little


class Slot:
    """One agent here: its committed state, and the turn it is in."""

    __slots__ = ("activation", "epoch", "leaving", "state", "version", "workspace")

    def __init__(self) -> None:
        self.epoch = 0
        self.version = 0
        self.state: bytes | None = None
        self.activation: Activation | None = None
        self.leaving = False
        self.workspace: Workspace | None = None

    def forget_workspace(self) -> None:
        if self.workspace is not None:
            self.workspace.remove()
            self.workspace = None


class HostCore:
    """The host without its process: one connection to the gate, one slot per agent."""

    def __init__(
        self,
        path: Path,
        host_id: str,
        *,
        node: str = "local",
        gone_s: float = GONE_S,
        reserved: str = "",
        folder: Path | None = None,
    ) -> None:
        self.namespace = ""
        self.digest = ""
        self.specialised = threading.Event()
        self._path = path
        self._host_id = host_id
        folder = folder or path.parent  # where code and workspaces lie
        self._work = folder / "work" / host_id
        self._code = folder / "code" / host_id
        self._node = node
        self._reserved = reserved
        self._gone_s = gone_s
        self._slots: dict[str, Slot] = {}
        self._by_turn: dict[str, str] = {}
        self._package: Package | None = None
        self._installed = False
        self._before_code: list[Run] = []
        self._state_bytes_max = Welcome(0, 0).state_bytes_max
        self._connection: Connection[ToHost] | None = None
        self._lease: LeaseThread | None = None
        self._ended: asyncio.Future[str] | None = None
        self._holding = ("", 0.0)  # the turn that is on the loop, and since when
        self._replays = Replays(self._send, self._hold)

    async def serve(self) -> str:
        """Serve until told to end; answers why."""
        loop = asyncio.get_running_loop()
        sys.set_asyncgen_hooks(None, None)  # generators of handlers are none of the loop's business
        stepping.install()
        self._ended = loop.create_future()
        self._lease = LeaseThread(
            self._path,
            self._host_id,
            loop,
            running=self._running,
            end=self.end,
            gone_s=self._gone_s,
            holding=lambda: self._holding,
        )
        self._lease.start()
        keeping = loop.create_task(self._keep_connected())
        try:
            return await self._ended
        finally:
            keeping.cancel()
            self._lease.stop()
            self._forget()
            if self._connection is not None:
                self._connection.close()
            if self._package is not None:
                self._package.remove()
            shutil.rmtree(self._work, ignore_errors=True)

    def end(self, reason: str) -> None:
        """End the host; on the loop's thread."""
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(reason)

    async def _keep_connected(self) -> None:
        retry_s = RETRY_FIRST_S
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                _, self._connection = await loop.create_unix_connection(self._opened, str(self._path))
            except OSError:
                self._connection = None
            if self._connection is not None:
                self._hello()
                await self._connection.lost
                self._connection = None
                self._forget()
            if loop.time() - began >= AT_ONCE_S:
                retry_s = RETRY_FIRST_S
                continue
            await asyncio.sleep(retry_s)
            retry_s = min(retry_s * 2, RETRY_MOST_S)

    def _opened(self) -> Connection[ToHost]:
        return Connection[ToHost](ToHost, self._received)

    def _hello(self) -> None:
        started = process_started(os.getpid())
        about = (self.namespace, self.digest, self._reserved)
        self._send(Hello(self._host_id, os.getpid(), started, self._node, *about, PYTHON))

    def _forget(self) -> None:
        """A clean slate: what was not committed is the gate's to run again."""
        self._replays.forget()
        for slot in self._slots.values():
            if slot.activation is not None:
                slot.activation.drop()
            slot.forget_workspace()
        self._slots.clear()
        self._by_turn.clear()
        self._before_code.clear()

    def _running(self) -> int:
        return sum(1 for slot in list(self._slots.values()) if slot.activation and slot.activation.phase != "parked")

    # Frames from the gate

    def _received(self, frame: ToHost) -> None:
        self._replays.heard += 1
        match frame:
            case Run():
                self._run(frame)
            case Receipt():
                self._answer(frame)
            case Resolved():
                self._answer(frame)
            case Evict():
                self._evict(frame)
            case Specialise():
                self._specialise(frame)
            case CodeFiles():
                self._install(frame)
            case Welcome():
                self._welcome(frame)
            case Bye():
                self.end(frame.reason)

    def _welcome(self, frame: Welcome) -> None:
        self._state_bytes_max = frame.state_bytes_max
        self._replays.one_in = frame.replay_one_in
        if self._lease is not None:
            self._lease.renew_s = frame.renew_s
            self._lease.seen()

    def _specialise(self, frame: Specialise) -> None:
        """Once, for good. A host that was specialised otherwise is of no use: it ends."""
        if self.digest:
            if (self.namespace, self.digest) != (frame.namespace, frame.digest):
                self.end(f"specialised for {self.namespace} {self.digest} already")
            self._replays.one_in = frame.replay_one_in
            return
        self._replays.one_in = frame.replay_one_in
        self.namespace, self.digest = frame.namespace, frame.digest
        self._package = Package(frame.digest, self._code)
        self.specialised.set()
        self._send(CodeWanted(frame.digest))

    def _install(self, frame: CodeFiles) -> None:
        if self._package is None or self._installed or frame.digest != self.digest:
            return
        self._package.install(frame.files)
        faults.at("host.code.written")
        self._installed = True
        waiting, self._before_code = self._before_code, []
        for run in waiting:
            self._run(run)

    def _run(self, run: Run) -> None:
        faults.at("host.run")
        package = self._package
        if package is None or not self._installed:
            if package is not None and not self._before_code:
                self._send(CodeWanted(package.digest))  # the answer may have died with a connection
            self._before_code.append(run)
            return
        self._hold(run.turn_id)
        try:
            self._begin(run, package)
        finally:
            self._hold("")

    def _hold(self, turn_id: str) -> None:
        """A turn has the loop from now on; or none has."""
        self._holding = turn_id, time.monotonic()

    def _begin(self, run: Run, package: Package) -> None:
        slot = self._slots.setdefault(run.agent, Slot())
        self._leave_turn(slot)
        slot.epoch, slot.leaving = run.epoch, False
        if run.state or run.version == 0:
            slot.state, slot.version = run.state, run.version
        if slot.state is None or slot.version != run.version:
            self._unable(run, f"the host does not hold version {run.version} of {run.namespace}/{run.name}")
            return
        try:
            workspace = self._workspace(slot, run)
        except OSError as error:
            slot.forget_workspace()
            self._unable(run, f"the workspace of {run.namespace}/{run.name} can not be made: {error}")
            return
        given: Any = {"workspace": workspace, "kept": self._replays.keeps(run)}
        most = self._state_bytes_max
        slot.activation = Activation(run, slot.state, state_bytes_max=most, send=self._send, **given)
        self._by_turn[run.turn_id] = run.agent
        loaded = package.load(run.entrypoint)
        faults.at("host.code.loaded")
        slot.activation.start(loaded)
        self._settle(slot)

    def _unable(self, run: Run, detail: str) -> None:
        """The turn can not even begin here."""
        body = canonical(problem("INTERNAL", detail, version=run.version).model_dump(mode="json"))
        self._send(Failed(run.turn_id, run.epoch, body, retry=True, cpu_ns=0))

    def _workspace(self, slot: Slot, run: Run) -> Workspace | None:
        """The agent's folder as it was committed, if it has one."""
        if run.workspace is None:
            slot.forget_workspace()
            return None
        if slot.workspace is None:
            slot.workspace = Workspace(self._work / run.agent)
        slot.workspace.begin(run.workspace)
        return slot.workspace

    def _answer(self, frame: Receipt | Resolved) -> None:
        slot = self._slots.get(self._by_turn.get(frame.turn_id, ""))
        if slot is None or slot.activation is None:
            return
        self._hold(frame.turn_id)
        try:
            if isinstance(frame, Receipt):
                slot.activation.receipt(frame)
            else:
                slot.activation.resolved(frame)
        finally:
            self._hold("")
        self._settle(slot)

    def _settle(self, slot: Slot) -> None:
        """After a step: keep what was committed, forget who is leaving."""
        activation = slot.activation
        if activation is None:
            return
        if activation.phase == "over":
            self._leave_turn(slot)
            if activation.ended is not None:
                slot.state, slot.version = activation.ended.state, activation.run.version + 1
                self._run_again(activation)
        if slot.leaving and activation.phase in ("over", "parked"):
            self._release(activation.run.agent, slot)

    def _run_again(self, activation: Activation) -> None:
        """A turn has sent its commit; if it was chosen, it is replayed when there is time."""
        if not activation.kept or self._package is None:
            return
        loaded = self._package.load(activation.run.entrypoint)
        if isinstance(loaded, Loaded):
            self._replays.add(activation, loaded)

    def _leave_turn(self, slot: Slot) -> None:
        if slot.activation is not None:
            self._by_turn.pop(slot.activation.run.turn_id, None)
            slot.activation.drop()
            slot.activation = None

    def _evict(self, frame: Evict) -> None:
        """Forget an agent: at once, or when its running turn comes to a rest."""
        slot = self._slots.get(frame.agent)
        if slot is None or slot.epoch > frame.epoch:
            self._before_code = [run for run in self._before_code if run.agent != frame.agent]
            self._send(Released(frame.agent, frame.epoch))
        elif slot.activation is not None and slot.activation.phase == "effect" and not frame.abort:
            slot.leaving = True
        else:
            self._release(frame.agent, slot)

    def _release(self, agent: str, slot: Slot) -> None:
        self._leave_turn(slot)
        slot.forget_workspace()
        self._slots.pop(agent, None)
        faults.at("host.released")
        self._send(Released(agent, slot.epoch))

    def _send(self, frame: Frame) -> None:
        if self._connection is not None:
            self._connection.send(frame)


def run_host(core: HostCore) -> str:
    """Run a host in this thread, on a loop of its own, until it ends; answers why."""
    with asyncio.Runner(loop_factory=_loop) as runner:
        if threading.current_thread() is threading.main_thread():
            runner.get_loop().add_signal_handler(signal.SIGTERM, core.end, "SIGTERM")
        return runner.run(core.serve())


def _loop() -> asyncio.AbstractEventLoop:
    """uvloop where it is installed: a fifth less latency."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def main() -> None:
    """`python -m ray_runtime.host --socket S --host-id H`."""
    parser = argparse.ArgumentParser(prog="python -m ray_runtime.host", description="One host, as a plain process.")
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--host-id", required=True)
    parser.add_argument("--node", default="local")
    parser.add_argument("--gone-s", type=float, default=GONE_S)
    parser.add_argument("--folder", type=Path, default=None)
    given = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":
        # sets of strings must iterate alike in every host, or a replay could differ
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, "PYTHONHASHSEED": "0"})  # noqa: S606
    reserved = os.environ.pop(RESERVED, "")  # not among the arguments, which everybody can read
    about = {"node": given.node, "gone_s": given.gone_s, "reserved": reserved, "folder": given.folder}
    run_host(HostCore(given.socket, given.host_id, **about))


if __name__ == "__main__":
    main()
