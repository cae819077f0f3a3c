"""Asking the process that judges and transforms: one for all workers of a host, made with the first question.

A thread of the host's makes it and speaks with it, because handlers start nothing; it is there from when this code was
loaded. A question holds up the loop of the host no longer than its bound, which is one of CPU time. A process that
ended over a question, or does not answer in time, is ended, and another is made for the next.
"""

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from queue import SimpleQueue
from typing import Any

import orjson

from .evaluator import LENGTH, received
from .expressions import Unfit

PROGRAM = "ray_runtime.route.evaluator"
ANSWER_S_MAX = 60.0  # of a machine that has other things to do: CPU time is bounded by the process itself
TOO_MUCH = "the expressions take more time or memory for it than there is"
Answer = SimpleQueue[list[Any] | None]


class Evaluator:
    """One process, while it answers."""

    def __init__(self) -> None:
        self._asked: SimpleQueue[tuple[bytes, Answer] | None] = SimpleQueue()
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
        """Whether it passes, and what it becomes; raises Unfit."""
        asked = {"filter": filter_, "transform": transform, "accept": accept, "data": data, "envelope": envelope or {}}
        answer: Answer = SimpleQueue()
        self._asked.put((orjson.dumps(asked), answer))
        told = answer.get()
        if told is None:
            raise Unfit(TOO_MUCH)
        passed, made, unfit = told
        if unfit:
            raise Unfit(unfit)
        return passed, made

    def _serve(self) -> None:
        while (asked := self._asked.get()) is not None:
            question, answer = asked
            try:
                answer.put(self._told(question))
            except Exception:  # noqa: BLE001 - no answer in time, or it ended; whoever asks waits for an answer
                self._close()
                answer.put(None)
        self._close()

    def _told(self, question: bytes) -> list[Any]:
        stream = self._stream or self._begun()
        stream.settimeout(ANSWER_S_MAX)
        stream.sendall(LENGTH.pack(len(question)) + question)
        (length,) = LENGTH.unpack(received(stream, LENGTH.size))
        told: list[Any] = orjson.loads(received(stream, length))
        return told

    def _begun(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        program = (sys.executable, "-P", "-m", PROGRAM)
        with theirs:
            self._process = subprocess.Popen(
                program, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        self._stream = ours
        return ours

    def _close(self) -> None:
        stream, process = self._stream, self._process
        self._stream = self._process = None
        if stream is not None:
            stream.close()
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()


EVALUATOR = Evaluator()
if not __name__.startswith("ray_runtime."):  # as the code of workers, in a host
    EVALUATOR.serve()
