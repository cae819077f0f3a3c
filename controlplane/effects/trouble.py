"""What keeps the gate from writing: told to every plane at once, and to the feedback log when it is over.

The first write that fails for want of the store begins it. From then on the sweep tries to write the
event that ends it; the event is in the log if and only if writing works again, and says since when and
why it did not.
"""

import logging

from controlplane.effects.node import MESSAGES, Done, Node
from controlplane.effects.turnref import Row, at_time
from controlplane.store import statements as sql
from schemas.base import canonical

log = logging.getLogger("steward.gate")
STORE = ("STORAGE_FULL", "NOT_READY")
WORDS = {
    "STORAGE_FULL": "The store can not be written since {since}: {cause}. Make room, or the data folder writable; "
    "what was acknowledged is kept, reads go on, and writing goes on by itself.",
    "NOT_READY": "The database is away since {since}: {cause}. Start it; writing goes on by itself.",
}


class Trouble:
    """Whether the store takes what is written."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._since: float | None = None
        self._reason = self._cause = ""
        self._trying = False

    @property
    def words(self) -> str:
        """The trouble as a reader sees it; empty when there is none."""
        if self._since is None:
            return ""
        return WORDS[self._reason].format(since=at_time(self._since), cause=self._cause)

    def heard(self, outcome: str, detail: str) -> None:
        """What came of a unit."""
        reason, _, cause = detail.partition(": ")
        if outcome != "error" or reason not in STORE or self._since is not None:
            return
        self._since, self._reason, self._cause = self._node.clock(), reason, cause
        log.error("%s", self.words)
        self._node.planes.tell(self.words)

    def sweep(self) -> None:
        """Try to write that it is over."""
        if self._since is None or self._trying:
            return
        self._trying = True
        now = self._node.clock()
        data = {"reason": self._reason, "cause": self._cause, "since": at_time(self._since)}
        row = (sql.EVENT, ("storage.recovered", now, "Plane", "", "plane", None, None, canonical(data).decode()), 1)

        def written(outcome: str, _detail: str) -> None:
            self._trying = False
            if outcome == "ok":
                log.info("the store takes what is written again")
                self._since = None
                self._node.planes.tell("")

        self.tell(row, written)

    def tell(self, row: Row, done: Done = lambda _outcome, _detail: None) -> None:
        """An event that nobody waits for."""
        self._node.commit("trouble", [row], done, MESSAGES)
