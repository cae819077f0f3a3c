"""The journal of one turn, as the host sees it: positions, what is buffered, what is replayed.

Every effect of a turn takes the next position of its branch. Where the journal handed back by the
gate already holds that position, kind and body must be the same, and nothing is asked again; beyond
it, an internal effect is buffered until the segment commits. A difference, and a limit passed, end
the turn whatever the handler makes of the exception. Time stands still between recorded events.
In which order answers reached the branches is journaled with what came of it: before that, nobody has
seen any of it, and another order is as good. One that is `kept` can be handed back whole when the turn has ended;
one that is `sealed` is of a turn that has, and takes nothing new.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec.structs import replace

from ray_runtime import divergence
from ray_runtime.problems import problem, refuse
from schemas.base import canonical
from schemas.branches import ORDER, ROOT, Place
from schemas.problem import Problem, Refusal
from schemas.wire import Entry, Recorded

if TYPE_CHECKING:
    from ray_runtime.awaits import Promise

AWAITS = frozenset({"ask", "sleep", "question", "gather"})
KEPT_BYTES_MAX = 1_048_576  # of a journal that is kept, answers included


class Answer(NamedTuple):
    """What came of an effect or an await: its outcome, its JSON, and when."""

    outcome: str
    result: bytes
    at: float


class _Order(msgspec.Struct):
    came: list[Place]


class Journal:
    """Positions of one attempt at one turn; `branch` is the one whose step is running."""

    def __init__(
        self,
        recorded: list[Recorded],
        *,
        turn_id: str,
        started_at: float,
        entries_max: int,
        bytes_max: int,
        kept: bool = False,
        sealed: bool = False,
    ) -> None:
        self.now = started_at
        self.branch = ROOT
        self.open_branches = 0
        self.fatal: Problem | None = None
        self.stepping = False
        self.over = False
        self.promises: list[Promise[Any]] = []
        self.told: list[Place] = []  # whose answers the handler has, in the order in which it got them
        self._turn_id = turn_id
        self._recorded = {(it.branch, it.position): it for it in recorded if it.branch != ORDER}
        orders = sorted((it for it in recorded if it.branch == ORDER), key=lambda it: it.position)
        self._order = [place for it in orders for place in _places(it.body)]
        self._orders = len(orders)
        self._delivered = 0
        self._unordered: list[Place] = []
        self._came: dict[Place, Answer] = {}
        self._states: dict[Place, str] = {}
        self._positions: dict[str, int] = {}
        self._entries = 0
        self._buffer: list[Entry] = []
        self._bytes = 0
        self._entries_max = entries_max
        self._bytes_max = bytes_max
        self._kept: dict[Place, tuple[str, bytes]] | None = {} if kept else None
        self._reached: list[Place] = []  # of one that is kept: all of the order
        self._sealed = sealed

    @property
    def position(self) -> int:
        """The next position of the branch."""
        return self._positions.get(self.branch, 0)

    def record(self, kind: str, body: bytes) -> int:
        """Take the next position for an internal effect, and buffer it unless it is replayed."""
        position = self.intend(kind, body)
        if (self.branch, position) not in self._recorded:
            self._buffer.append(Entry(self.branch, position, kind, body))
        return position

    def intend(self, kind: str, body: bytes) -> int:
        """Take the next position; the same as the journal holds there, if it holds any."""
        self.demand_step(kind)
        position = self.position
        if self._entries >= self._entries_max:
            most = self._entries_max
            raise self.end(
                problem("LIMIT_REACHED", f"a turn has at most {most} effects", limit="effects_max", max=most)
            )
        self._grow(len(body))
        if self.fatal is not None:
            raise Refusal(self.fatal)
        entry = self._recorded.get((self.branch, position))
        if entry is not None and not divergence.same(entry, kind, body):
            raise self.end(divergence.diverged(self._turn_id, entry, kind, body))
        if entry is None and self._sealed:
            raise self.end(divergence.beyond(self._turn_id, (self.branch, position), kind, body))
        self._keep((self.branch, position), kind, body)
        self._positions[self.branch] = position + 1
        self._entries += 1
        return position

    def demand_step(self, what: str) -> None:
        """Refuse what is asked of a turn from outside its own handler, while it is not running."""
        if not self.stepping:
            raise refuse("NONDETERMINISTIC", f"{what} was asked of a turn that is not running", what=what)
        if self.over:
            detail = f"{what} was asked for after turn.continue_as, which ends the turn"
            self.end(problem("HANDLER_ERROR", detail, what=what))
        if self.fatal is not None:
            raise Refusal(self.fatal)

    # Answers

    def holds(self, place: Place) -> bool:
        """Whether the journal that the gate handed back has something there."""
        return place in self._recorded

    def fill(self, place: Place, answer: Answer) -> None:
        """What came while the turn waited."""
        self._came[place] = answer

    def known(self, place: Place) -> Answer | None:
        """What came, or what is recorded, if there is anything."""
        entry = self._recorded.get(place)
        if entry is None or not entry.outcome:
            return self._came.get(place)
        return Answer(entry.outcome, entry.result, entry.at)

    def member(self, place: Place) -> Answer | None:
        """What came of a member of a gathering; None when it was not needed any more. Counts its bytes."""
        answer = self.known(place)
        if answer is None or answer.outcome == "cancelled":
            return None
        self.told.append(place)
        self._grow(len(answer.result))
        return answer

    def answered(self, place: Place, answer: Answer) -> None:
        """Move the turn's time to the answer's, and count its bytes; may end the turn (`fatal`)."""
        self.told.append(place)
        self.now = max(self.now, answer.at)
        self._grow(len(answer.result))

    # The order in which answers reach the branches

    def first(self) -> Place | None:
        """Which answer is the next one, by the journal; None beyond what it says."""
        return self._order[self._delivered] if self._delivered < len(self._order) else None

    def reached(self, place: Place) -> None:
        """An answer reaches its branch."""
        if self._kept is not None:
            self._reached.append(place)
        if self._delivered < len(self._order):
            self._delivered += 1
        else:
            self._unordered.append(place)

    def astray(self, place: Place) -> None:
        """The replay does not wait where the journal says that an answer came next."""
        self.end(divergence.astray(self._turn_id, place))

    # The state, where a branch waits

    def unmarked(self, place: Place) -> bool:
        """Whether the journal holds something there, and no hash of the state with it."""
        entry = self._recorded.get(place)
        return entry is not None and not entry.state

    def mark(self, place: Place, kind: str, state: str) -> None:
        """The hash of the state when the handler came there: recorded, or held against the journal's."""
        entry = self._recorded.get(place)
        if entry is None:
            self._states[place] = state
        elif entry.state != state:
            self.end(divergence.state_diverged(self._turn_id, place, kind, entry.state, state))

    def state_at(self, place: Place) -> str:
        """The hash that was marked there; empty where there is none."""
        return self._states.get(place, "")

    # Segments

    def take(self) -> list[Entry]:
        """What was buffered since the last time."""
        states = self._states
        taken = [replace(it, state=states[at]) if (at := (it.branch, it.position)) in states else it
                 for it in self._buffer]  # fmt: skip
        self._buffer = []
        if self._unordered:
            body = canonical({"came": self._unordered})
            taken.insert(0, Entry(ORDER, self._orders, ORDER, body))
            self._orders, self._unordered = self._orders + 1, []
        return taken

    def whole(self) -> list[Recorded] | None:
        """Of a kept turn that has ended: its journal, as a gate would hand it back; None if it grew too long."""
        if self._kept is None:
            return None
        found = []
        for place, (kind, body) in self._kept.items():
            entry, came = self._recorded.get(place), self.known(place) or Answer("", b"", 0.0)
            state = self.state_at(place) if entry is None else entry.state
            found.append(Recorded(*place, kind, body, came.outcome, came.result, came.at, state))
        if self._reached:
            found.append(Recorded(ORDER, 0, ORDER, canonical({"came": self._reached}), "", b"", 0.0))
        return found

    def _keep(self, place: Place, kind: str, body: bytes) -> None:
        if self._kept is not None:
            self._kept[place] = kind, body
            if self._bytes > KEPT_BYTES_MAX:
                self._kept = None

    def has_awaits(self) -> bool:
        """Whether something durable is waited for that the gate does not know of."""
        return any(it.kind in AWAITS for it in self._buffer)

    def leftover(self) -> Problem | None:
        """An entry that the journal holds and the replay never asked for."""
        beyond = [it for it in self._recorded if it[1] >= self._positions.get(it[0], 0)]
        if beyond:
            first_beyond = self._recorded[min(beyond, key=divergence.in_order)]
            return divergence.diverged(self._turn_id, first_beyond, "nothing", b"null")
        if (first := self.first()) is not None:
            self.astray(first)
        return self.fatal

    def _grow(self, count: int) -> None:
        self._bytes += count
        most = self._bytes_max
        if self._bytes > most:
            self.end(
                problem(
                    "LIMIT_REACHED",
                    f"the journal of a turn holds at most {most} bytes",
                    limit="journal_bytes_max",
                    max=most,
                )
            )

    def end(self, found: Problem) -> Refusal:
        """The turn is over, whatever the handler makes of it."""
        self.fatal = self.fatal or found
        return Refusal(self.fatal)


def _places(body: bytes) -> list[Place]:
    return msgspec.json.decode(body, type=_Order).came
