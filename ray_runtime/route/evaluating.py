"""Asking the process that judges and transforms: one for all workers of a host, made with the first question.

A question holds up the loop of the host no longer than its bound. A process that does not answer in time, or ended over
a question, is ended, and another is made for the next.
"""

import contextlib
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import orjson

from .evaluator import LENGTH, received
from .expressions import EVALUATION_MS_MAX, Unfit

PROGRAM = "ray_runtime.route.evaluator"
ANSWER_S_MAX = EVALUATION_MS_MAX / 1000 + 1.0
FIRST_ANSWER_S_MAX = 30.0
TOO_MUCH = "the expressions take more time or memory for it than there is"


class Evaluator:
    """One process, while it answers."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._stream: socket.socket | None = None
        self._answered = False

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
        try:
            passed, made, unfit = self._asked(orjson.dumps(asked))
        except (OSError, EOFError):  # in time neither an answer nor an end; or it ended
            self.end()
            raise Unfit(TOO_MUCH) from None
        if unfit:
            raise Unfit(unfit)
        return passed, made

    def _asked(self, question: bytes) -> list[Any]:
        stream = self.begun()
        stream.settimeout(ANSWER_S_MAX if self._answered else FIRST_ANSWER_S_MAX)
        stream.sendall(LENGTH.pack(len(question)) + question)
        (length,) = LENGTH.unpack(received(stream, LENGTH.size))
        told: list[Any] = orjson.loads(received(stream, length))
        self._answered = True
        return told

    def begun(self) -> socket.socket:
        """The way to the process; who makes it early need not wait for it later."""
        if self._stream is not None:
            return self._stream
        ours, theirs = socket.socketpair()
        program = (sys.executable, "-P", "-m", PROGRAM)
        with theirs:
            self._process = subprocess.Popen(
                program, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        self._stream, self._answered = ours, False
        return ours

    def end(self) -> None:
        """End the process; the next question makes another."""
        stream, process = self._stream, self._process
        self._stream = self._process = None
        if stream is not None:
            stream.close()
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()


EVALUATOR = Evaluator()
