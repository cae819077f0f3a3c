"""Asking the process that judges and transforms: one for all workers of a host, made with the first question.

A thread of the host's makes it and speaks with it, because handlers start nothing; it is there from when this code was
loaded. A question holds up the loop of the host for `ANSWER_S_MAX` at most. One over which the process used up its CPU
time is unfit. Whatever else a process ends of says nothing about the question: another one is asked, and where that
does not answer either, the turn is tried again later.
"""

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from queue import Empty, SimpleQueue
from typing import Any

import orjson

from ray_runtime.problems import Unanswered

from .evaluator import LENGTH, READY, received
from .expressions import Unfit

PROGRAM = "ray_runtime.route.evaluator"
ANSWER_S_MAX = 4.0  # twice the bound of CPU time, and below what a loop may be held (`loop_held_s_max`)
BEGIN_S_MAX = 60.0  # of a process, on a machine that has other things to do; nobody waits for it so long
ASKED_MAX = 2  # processes, about one question
TOO_MUCH = "the expressions take more time or memory for it than there is"
Answer = SimpleQueue[list[Any] | None]
Asked = tuple[bytes, Answer, float]  # and until when whoever asks waits


class Evaluator:
    """One process, while it answers."""

    def __init__(self) -> None:
        self._asked: SimpleQueue[Asked | None] = SimpleQueue()
        self._process: subprocess.Popen[bytes] | None = None
        self._stream: socket.socket | None = None

    def serve(self) -> None:
        """Take questions from now on, in a thread."""
        threading.Thread(target=self._serve, name="route-evaluator", daemon=True).start()

    def end(self) -> None:
        """Take no more."""
        self._asked.put(None)

    def ask(
        self,
        data: Any,
        filter_: str | None = None,
        transform: str | None = None,
        accept: str | None = None,
        envelope: Mapping[str, Any] | None = None,
    ) -> tuple[bool, Any]:
        """Whether it passes, and what it becomes; raises Unfit, and Unanswered."""
        asked = {"filter": filter_, "transform": transform, "accept": accept, "data": data, "envelope": envelope or {}}
        answer: Answer = SimpleQueue()
        self._asked.put((orjson.dumps(asked), answer, time.monotonic() + ANSWER_S_MAX))
        told = None
        with contextlib.suppress(Empty):
            told = answer.get(timeout=ANSWER_S_MAX)
        if told is None:
            raise Unanswered("the process that judges and transforms for routes gave no answer")
        passed, made, unfit = told
        if unfit:
            raise Unfit(unfit)
        return passed, made

    def _serve(self) -> None:
        while (asked := self._asked.get()) is not None:
            question, answer, until = asked
            answer.put(self._answered(question, until))
            if self._stream is None:  # the next question has no time for that
                self._known(self._begun)
        self._close()

    def _answered(self, question: bytes, until: float) -> list[Any] | None:
        """What a process says, or ended of; None where that is not known in time."""
        for _ in range(ASKED_MAX):
            if time.monotonic() >= until:
                break
            told: list[Any] | None = self._known(lambda: self._told(question, until))
            if told is not None:
                return told
        return None

    def _known(self, what: Callable[[], Any]) -> Any:
        try:
            return what()
        except Exception:  # noqa: BLE001 - it was not made, ended, or did not answer; the thread goes on
            return [False, None, TOO_MUCH] if self._close() == -signal.SIGPROF else None

    def _told(self, question: bytes, until: float) -> list[Any]:
        stream = self._stream or self._begun()
        stream.settimeout(max(until - time.monotonic(), 0.001))
        stream.sendall(LENGTH.pack(len(question)) + question)
        (length,) = LENGTH.unpack(received(stream, LENGTH.size))
        told: list[Any] = orjson.loads(received(stream, length))
        return told

    def _begun(self) -> socket.socket:
        """A process that takes questions."""
        self._stream, theirs = socket.socketpair()
        program = (sys.executable, "-P", "-m", PROGRAM)
        with theirs:
            self._process = subprocess.Popen(
                program, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        self._stream.settimeout(BEGIN_S_MAX)
        received(self._stream, len(READY))
        return self._stream

    def _close(self) -> int | None:
        """What the process ended of, as `Popen` says it."""
        stream, process = self._stream, self._process
        self._stream = self._process = None
        if stream is not None:
            stream.close()
        if process is None:
            return None
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        return process.wait()


EVALUATOR = Evaluator()
if not __name__.startswith("ray_runtime."):  # as the code of workers, in a host
    EVALUATOR.serve()
