"""The journal of one turn, as the host sees it: positions, what is buffered, what is replayed.

Every effect of a turn takes the next position of its branch. Where the journal handed back by the
gate already holds that position, kind and body must be the same, and nothing is asked again; beyond
it, an internal effect is buffered until the segment commits. A difference, and a limit passed, end
the turn whatever the handler makes of the exception. Time stands still between recorded events.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from ray_runtime.problems import problem, refuse
from schemas.base import canonical
from schemas.problem import Problem, Refusal
from schemas.wire import Entry, Recorded

if TYPE_CHECKING:
    from ray_runtime.awaits import Promise

BRANCH = "0"
SIDE_BYTES_MAX = 4096


class Answer(NamedTuple):
    """What came of an effect or an await: its outcome, its JSON, and when."""

    outcome: str
    result: bytes
    at: float


class Journal:
    """Positions of one attempt at one turn."""

    def __init__(self, recorded: list[Recorded], *, started_at: float, entries_max: int, bytes_max: int) -> None:
        self.now = started_at
        self.position = 0
        self.fatal: Problem | None = None
        self.stepping = False
        self.promises: list[Promise[Any]] = []
        self._recorded = {entry.position: entry for entry in recorded}
        self._members: dict[int, Answer] = {}
        self._buffer: list[Entry] = []
        self._bytes = 0
        self._entries_max = entries_max
        self._bytes_max = bytes_max

    def record(self, kind: str, body: bytes) -> int:
        """Take the next position for an internal effect, and buffer it unless it is replayed."""
        position = self.intend(kind, body)
        if position not in self._recorded:
            self._buffer.append(Entry(BRANCH, position, kind, body))
        return position

    def intend(self, kind: str, body: bytes) -> int:
        """Take the next position; the same as the journal holds there, if it holds any."""
        self.demand_step(kind)
        position = self.position
        if position >= self._entries_max:
            most = self._entries_max
            raise self._end(
                problem("LIMIT_REACHED", f"a turn has at most {most} effects", limit="effects_max", max=most)
            )
        self._grow(len(body))
        if self.fatal is not None:
            raise Refusal(self.fatal)
        entry = self._recorded.get(position)
        if entry is not None and not _same(entry, kind, body):
            raise self._end(_diverged(entry, kind, body))
        self.position += 1
        return position

    def demand_step(self, what: str) -> None:
        """Refuse what is asked of a turn from outside its own handler, while it is not running."""
        if not self.stepping:
            raise refuse("NONDETERMINISTIC", f"{what} was asked of a turn that is not running", what=what)
        if self.fatal is not None:
            raise Refusal(self.fatal)

    def replayed(self, position: int) -> Answer | None:
        """The recorded answer at a position, if there is one."""
        entry = self._recorded.get(position)
        return Answer(entry.outcome, entry.result, entry.at) if entry is not None and entry.outcome else None

    def fill(self, position: int, answer: Answer) -> None:
        """What came of a member of a gathering, while its turn was parked."""
        self._members[position] = answer

    def member(self, position: int) -> Answer | None:
        """What came of a member of a gathering; None when it was not needed any more. Counts its bytes."""
        answer = self._members.get(position) or self.replayed(position)
        if answer is None or answer.outcome == "cancelled":
            return None
        self._grow(len(answer.result))
        return answer

    def answered(self, answer: Answer) -> None:
        """Move the turn's time to the answer's, and count its bytes; may end the turn (`fatal`)."""
        self.now = max(self.now, answer.at)
        self._grow(len(answer.result))

    def take(self) -> list[Entry]:
        """What was buffered since the last time."""
        taken, self._buffer = self._buffer, []
        return taken

    def leftover(self) -> Problem | None:
        """An entry that the journal holds and the replay never asked for."""
        beyond = min((p for p in self._recorded if p >= self.position), default=None)
        return None if beyond is None else _diverged(self._recorded[beyond], "nothing", b"null")

    def _grow(self, count: int) -> None:
        self._bytes += count
        most = self._bytes_max
        if self._bytes > most:
            self._end(
                problem(
                    "LIMIT_REACHED",
                    f"the journal of a turn holds at most {most} bytes",
                    limit="journal_bytes_max",
                    max=most,
                )
            )

    def _end(self, found: Problem) -> Refusal:
        self.fatal = self.fatal or found
        return Refusal(self.fatal)


def _same(entry: Recorded, kind: str, body: bytes) -> bool:
    if entry.kind != kind:
        return False
    return entry.body == body or _comparable(kind, entry.body) == _comparable(kind, body)


def _comparable(kind: str, body: bytes) -> Any:
    value = orjson.loads(body)
    if kind != "effect" or not isinstance(value, dict):
        return value
    return [value.get("effect"), value.get("connection") or None, value.get("arguments"), value.get("purpose") or ""]


def _side(kind: str, body: bytes) -> dict[str, Any]:
    if len(body) > SIDE_BYTES_MAX:
        return {"kind": kind, "bytes": len(body)}
    return {"kind": kind, "body": orjson.loads(body)}


def _diverged(entry: Recorded, kind: str, body: bytes) -> Problem:
    recorded, asked = _side(entry.kind, entry.body), _side(kind, body)
    detail = (
        f"at position {entry.position} the journal holds {canonical(recorded).decode()}, "
        f"the replay asked for {canonical(asked).decode()}"
    )
    return problem("REPLAY_DIVERGED", detail, position=entry.position, recorded=recorded, asked=asked)
