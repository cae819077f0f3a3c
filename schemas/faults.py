"""Fault points: named places where tests let a process die, stop, dawdle, or find its store broken.

Inert unless STEWARD_FAULTS names, when the process starts, a folder that only its user can enter; no
setting, no file of the data folder and no surface arms them, and hosts that Ray starts never get that
variable. A process that is armed says so. `POINTS` names every point and what it lies between; tests
fail when one is missing here, placed twice, or met by no process that dies of it. Of the three points of
a unit that is slow to reach that is one, which a seed chooses; in a soak it is all.
"""

import os
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

VARIABLE = "STEWARD_FAULTS"
PLAN = "plan.json"
STAND_LOOK_S = 0.005

# What the gate commits. Each unit has three points: before it goes to the writer; when it is committed and
# nobody was told; when whoever waits was told.
UNITS = {
    "publish": "a message of an operator, taken in",
    "channel": "a publication, taken in",
    "delivery": "messages of a channel, put into an inbox",
    "dispatch": "messages of a queue, given to members",
    "dated": "until when a message of a queue is good that a member gave back, noted",
    "overdue": "a message of a queue that no member had in time, given up",
    "uninvited": "a guest of a channel whose invitation is over, a member no more",
    "delayed": "a message of an operator that waits for its time, taken in",
    "due": "a message whose time has come, in its place or put off",
    "feedback": "events of the log, put into an inbox",
    "acquire": "an agent, given to a host",
    "park": "a segment that ends in an await",
    "commit": "the end of a turn",
    "again": "an attempt that failed and is repeated",
    "bury": "a turn that failed for good",
    "intent": "an external effect, written ahead",
    "resend": "an external effect, about to be sent once more",
    "hold": "an external effect in doubt, held for an operator",
    "withhold": "an external effect that a budget has no room for, kept for an operator",
    "settle": "what an operator says of a held effect",
    "answer": "what a person says to a question",
    "pause": "an agent, suspended in front of an effect that its budget has no room for",
    "receipt": "what came of an external effect",
    "offers": "what a far side offers, kept",
    "compute": "a function, about to be begun by Ray",
    "computed": "what came of a function that Ray ran",
    "timer": "a timer that fires",
    "expire": "an await whose time is over",
    "expired": "a question whose message expired in its inbox, answered so",
    "cycle": "an await that would wait for itself",
    "scope": "a child of an ended scope, deleted",
    "cleared": "nothing is left of a scope, noted",
    "lease": "the renewal of a host's lease",
    "release": "an agent that is let go",
    "fenced": "an agent taken from a host after a refused unit",
    "orphan": "an owner that nobody speaks for, taken away",
    "lost": "the agents of a host that was lost",
    "freed": "a turn, taken from a host that another turn holds",
    "held": "a host that a turn holds, told",
    "host": "the record of a host",
    "never": "the end of a host that never came",
    "ended": "the end of a host's record",
    "repeat": "a message that was handled before",
    "summary": "turns that ended, told",
    "write": "a unit of the plane",
    "recover": "all owners released at a start",
    "end": "all owners released at an end",
    "trouble": "the store takes what is written again, or somebody unknown was refused, told",
    "pin": "a parked turn that stays on older code",
    "prove": "a parked turn that goes on under newer code",
    "diverged": "code that did not come to the same in a replay, marked",
    "place": "the host that an agent shall go to",
    "drain": "a host that shall be empty",
    "named": "how the nodes that live are called, by Ray's ids of them",
    "node": "a node that shall be empty, or take agents again",
    "unstop": "a stopped agent, woken",
    "stop": "an agent, stopped",
    "remove": "an agent, removed",
    "asker": "who asked an agent that was removed",
}
MOMENTS = ("before", "committed", "told")
POINTS = {f"gate.{unit}.{moment}": what for unit, what in UNITS.items() for moment in MOMENTS} | {
    "gate.frame": "a frame was decoded, and nothing done about it",
    "gate.run.sending": "a turn is its host's by the gate's memory, and the host has not heard of it",
    "gate.run.sent": "a turn was handed to its host",
    "gate.resume": "an await is resolved, and its parked turn has not heard of it",
    "gate.effect.sending": "the intent is committed and the lease was checked; the effect is not sent",
    "gate.effect.sent": "the effect was done, and no receipt is committed",
    "gate.start.migrated": "the schema is there; owners of before are not released",
    "gate.start.remembered": "owners are released and hosts of before known; nothing is taken up",
    "gate.start.swept": "what waits was taken up; nobody can connect",
    "gate.start.listening": "peers can connect",
    "store.begin": "a batch is about to begin its transaction",
    "store.sqlite.commit": "all statements of a transaction are done, on SQLite, before COMMIT",
    "store.postgresql.commit": "all statements of a transaction are done, on PostgreSQL, before COMMIT",
    "store.committed": "a batch is on the disk, and nobody knows",
    "host.run": "a turn was received, and its code not looked at",
    "host.code.written": "code was fetched and written, and no turn of it begun",
    "host.code.loaded": "the agent's class is loaded, and its handler not begun",
    "host.handler.began": "the handler's first step comes next",
    "host.handler.waits": "the handler waits, and the gate was not asked",
    "host.handler.goes_on": "the answer has come, and the handler not gone on",
    "host.handler.ended": "the handler has ended, and nothing was sent",
    "host.frames.sending": "frames for the gate are gathered, and not written",
    "host.frames.sent": "frames for the gate were written",
    "host.released": "the host forgot an agent, and has not said so",
    "host.replay": "a turn that has committed is about to be run again in the background",
    "host.lease": "the lease is about to be renewed",
    "placer.creating": "a host is wanted, and Ray was not asked",
    "placer.created": "Ray was asked for a host, and nobody watches it",
    "placer.gone": "a host is gone, and the gate was not told",
    "plane.admitted": "the manifests are admitted, and no plan is made",
    "plane.kept": "the plan is stored, and not answered",
    "plane.committing": "the plan fits the world, and is not committed",
    "plane.committed": "the change is committed, and not answered",
    "plane.answering": "an operation is done, and not answered",
    "plane.reconcile.began": "a piece of a change is known to be missing, and nothing of it done",
    "plane.reconcile.done": "a piece of a change is done, and not noted",
    "plane.reconcile.hint": "a piece of a change is written, and the gate was not told",
    "plane.reconcile.noting": "steps of a change are so, and not noted",
    "plane.reconcile.noted": "steps of a change are noted",
    "plane.verdict.before": "a claim was observed, and has no verdict",
    "plane.verdict.after": "a claim has its verdict",
    "plane.revert.planned": "a miss is to be taken back: planned, and not committed",
    "plane.revert.committed": "a miss was taken back, and nobody noted that",
    "plane.ending.before": "all of a change is so and judged, and it is not ended",
    "plane.ending.after": "a change has ended",
}


class Fault(msgspec.Struct, frozen=True):
    """What happens, once, at the `nth` passing of a point.

    `kill` and `stop` are signals; `delay` lasts for `seconds`, and `stand` until a test lets go, or as long;
    `full` is a disk without room.
    """

    id: str
    point: str
    act: str = "kill"
    nth: int = 1
    seconds: float = 0.0


class _Armed:
    """The faults of a folder, read again whenever its plan is replaced."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._version: tuple[int, int] | None = None
        self._faults: list[Fault] = []
        self._passed: Counter[str] = Counter()
        self._counting = threading.Lock()  # the writer's thread passes points beside the loop's

    def passed(self, point: str) -> None:
        if point not in POINTS:
            raise RuntimeError(f"{point} is no fault point")
        with self._counting:
            self._read()
            self._passed[point] += 1
            met = [it for it in self._faults if it.point == point and it.nth == self._passed[point]]
        for fault in met:
            if self._first(fault):
                _happen(fault, self._folder)

    def _read(self) -> None:
        try:
            about = (self._folder / PLAN).stat()
        except FileNotFoundError:
            self._faults, self._version = [], None
            return
        version = (about.st_ino, about.st_mtime_ns)
        if version != self._version:
            text = (self._folder / PLAN).read_bytes()
            self._version, self._faults = version, msgspec.json.decode(text, type=list[Fault])
            self._passed.clear()

    def _first(self, fault: Fault) -> bool:
        """Whether no process of this folder has met the fault before; its mark is there whole, or not at all.

        Another thread's fault may end this process at any step of it.
        """
        own = self._folder / f"met-{fault.id}-{os.getpid()}"
        own.write_text(str(os.getpid()))
        try:
            os.link(own, self._folder / f"fired-{fault.id}")
        except FileExistsError:
            return False
        return True


_armed: _Armed | None = None


def at(point: str) -> None:
    """A fault point."""
    if _armed is not None:
        _armed.passed(point)


def around(unit: str, done: Callable[[str, str], None]) -> Callable[[str, str], None]:
    """The three points of a unit of the gate; `done` itself when nothing is armed."""
    if _armed is None:
        return done
    at(f"gate.{unit}.before")

    def told(outcome: str, detail: str) -> None:
        if outcome == "ok":
            at(f"gate.{unit}.committed")
        done(outcome, detail)
        if outcome == "ok":
            at(f"gate.{unit}.told")

    return told


def armed() -> bool:
    """Whether this process can be made to fail by a test."""
    return _armed is not None


def arm(folder: Path | None) -> None:
    """Obey a folder that nobody else can enter; any other is no folder of tests, and arms nothing."""
    global _armed
    _armed = None
    if folder is not None and folder.is_dir():
        about = folder.stat()
        if about.st_uid == os.getuid() and not about.st_mode & 0o077:
            _armed = _Armed(folder)


def _happen(fault: Fault, folder: Path) -> None:
    match fault.act:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "delay":
            time.sleep(fault.seconds)
        case "stand":
            _stand(folder / f"go-{fault.id}", fault.seconds)
        case "full":
            error: Any = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        case _:
            raise RuntimeError(f"{fault.act} is no fault")


def _stand(go: Path, seconds: float) -> None:
    """Wait for a file; the whole process does, as one that the machine gives no time."""
    end = time.monotonic() + seconds
    while not go.exists() and time.monotonic() < end:
        time.sleep(STAND_LOOK_S)


arm(Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
