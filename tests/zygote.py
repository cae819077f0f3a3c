"""Gates and hosts for tests, forked from a process that has imported what they run.

They are the processes that they would be if each were started by itself, but for the half second that its imports
take; a run of all tests starts a thousand. One that forks has no thread and has opened nothing.
"""

import array
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

FRAME_BYTES_MAX = 65_536


class Forked:
    """A process of the zygote's, with the part of `subprocess.Popen` that tests use."""

    def __init__(self, zygote: "Zygote", pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._zygote = zygote
        self._descriptor = os.pidfd_open(pid)

    def poll(self) -> int | None:
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        found = self._ended(None if timeout is None else timeout * 1000)
        if found is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        return found

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            signal.pidfd_send_signal(self._descriptor, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def _ended(self, timeout_ms: float | None) -> int | None:
        if self.returncode is None:
            poller = select.poll()
            poller.register(self._descriptor, select.POLLIN)
            if not poller.poll(timeout_ms):
                return None
            self.returncode = self._zygote.ask(reap=self.pid)
            os.close(self._descriptor)
        return self.returncode


class Zygote:
    """The process that forks, started when it is first needed; it ends with this one."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", "tests.zygote", str(theirs.fileno())]
        environment = {**os.environ, "PYTHONHASHSEED": "0"}  # of hosts; a gate may have it too
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment)
        theirs.close()
        self._asking = threading.Lock()

    def start(self, what: str, *arguments: str) -> Forked:
        """A gate or a host, with the environment that this process has by now."""
        return Forked(self, self.ask(run=what, arguments=arguments, environment=dict(os.environ)))

    def ask(self, **asked: Any) -> int:
        outputs = array.array("i", [1, 2])
        with self._asking:
            self._ours.sendmsg([json.dumps(asked).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, outputs)])
            return int(self._ours.recv(FRAME_BYTES_MAX))


_zygotes: dict[int, Zygote] = {}


def start(what: str, *arguments: str) -> Forked:
    """A `gate`, a `host` or a `relay`, started with the arguments of its command line."""
    mine = os.getpid()
    if mine not in _zygotes:
        _zygotes[mine] = Zygote()
    return _zygotes[mine].start(what, *arguments)


def _programs() -> dict[str, Callable[[], None]]:
    import controlplane.protocols.llm_client  # noqa: F401 - loaded by the first request, and for long
    import ray_runtime.host
    import tests.gate.process
    import tests.gate.relaying

    return {
        "gate": tests.gate.process.main,
        "host": ray_runtime.host.main,
        "relay": tests.gate.relaying.main,
    }


def _serve(channel: socket.socket) -> None:
    programs = _programs()
    assert len(os.listdir("/proc/self/task")) == 1, "a process with threads must not fork"
    gc.freeze()
    while True:
        text, outputs, _, _ = socket.recv_fds(channel, FRAME_BYTES_MAX, 2)
        if not text:
            return
        asked = json.loads(text)
        if "reap" in asked:
            answer = os.waitstatus_to_exitcode(os.waitpid(asked["reap"], 0)[1])
        else:
            answer = os.fork()
            if answer == 0:
                channel.close()
                _become(programs[asked["run"]], asked, outputs)
        for descriptor in outputs:
            os.close(descriptor)
        channel.send(str(answer).encode())


def _become(program: Callable[[], None], asked: dict[str, Any], outputs: list[int]) -> None:
    """Be that program, and end with it."""
    from schemas import faults

    code = 1
    try:
        for at, descriptor in zip((1, 2), outputs, strict=True):
            os.dup2(descriptor, at)
            os.close(descriptor)
        os.environ.clear()
        os.environ.update(asked["environment"] | {"PYTHONHASHSEED": "0"})
        folder = os.environ.get(faults.VARIABLE)
        faults.arm(Path(folder) if folder else None)
        sys.argv = [asked["run"], *asked["arguments"]]
        program()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except Exception:  # noqa: BLE001 - it ends as a process that raised
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
