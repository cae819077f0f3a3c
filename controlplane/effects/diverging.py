"""What hosts found when they ran committed turns again: it marks the code, once for each kind of first difference.

A host is believed of its own namespace and digest alone, and of a turn that has committed there; the mark is written
behind that commit, together with its event. Who says the same again changes nothing.
"""

import logging
from typing import Any

from pydantic import ValidationError

from controlplane.effects.keys import Key
from controlplane.effects.node import Node
from controlplane.effects.placing import Host
from controlplane.effects.reading import Away
from controlplane.resources.problems import problem
from controlplane.store import divergences
from schemas.base import canonical
from schemas.divergence import ADVICE, FIRSTS
from schemas.problem import Next, Problem
from schemas.wire import REPLAY, Diverged, Specialise

log = logging.getLogger("steward.gate")
PROBLEM_BYTES_MAX = 65_536
SAID_MAX = 100  # by one host, of what was not known

Mark = tuple[str, str, str]  # namespace, digest, kind of difference


class Diverging:
    """The marks that this gate knows of."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._known: set[Mark] = set()

    def one_in(self, key: Key) -> int:
        """One turn in how many a host of this code shall run again; none, where that once did not end."""
        most = self._node.bounds.replay_one_in
        try:
            endless = bool(key.digest and most) and self._marked((key.namespace, key.digest, "endless"))
        except Away:
            return 0
        return 0 if endless else most

    def diverged(self, host: Host, frame: Diverged) -> None:
        """A turn of the host's code did not come to the same."""
        if frame.first not in FIRSTS or (found := _problem(frame)) is None:
            log.warning("host %s says that %s differed, and not how", host.host_id, frame.turn_id[:80])
            return
        mark = host.namespace, host.digest, frame.first
        if mark not in self._known and host.differed < SAID_MAX:
            host.differed += 1
            self._mark(mark, frame.turn_id, found)

    def held(self, host: Host) -> None:
        """The host's loop is held by a turn that is over; if it is a replay, no other of its code shall be."""
        if not host.holding.startswith(REPLAY):
            return
        turn_id, held_s = host.holding.removeprefix(REPLAY), round(host.held_s, 1)
        detail = f"the turn came to its end, and its replay held its host for more than {held_s:g} s. {ADVICE}"
        look = Next(operation="turns.get", arguments={"turn_id": turn_id}, why="shows what it did")
        about: dict[str, Any] = {"turn_id": turn_id, "first": "endless", "held_s": held_s}
        found = problem("REPLAY_DIVERGED", detail, next=[look], **about)
        self._mark((host.namespace, host.digest, "endless"), turn_id, found)

    def _mark(self, mark: Mark, turn_id: str, found: Problem) -> None:
        if mark in self._known:
            return
        namespace, digest, first = mark
        now, text = self._node.clock(), canonical(found.model_dump(mode="json")).decode()
        data = canonical({"digest": digest, "first": first}).decode()  # values of state are not for the log
        rows = [
            (divergences.MARK, (first, text, now, turn_id, digest, namespace), 1),
            (divergences.TELL, (now, data, *mark), 1),
        ]
        self._known.add(mark)
        self._node.commit("diverged", rows, lambda outcome, _: self._written(mark, turn_id, outcome))

    def _written(self, mark: Mark, turn_id: str, outcome: str) -> None:
        """What was not written is marked already, or there is no such turn: then the next one may say it."""
        namespace, digest, first = mark
        if outcome == "ok":
            log.warning("code %s of namespace %s differed in a replay of %s: %s", digest, namespace, turn_id, first)
        else:
            self._known.discard(mark)
            self._marked(mark)
        if first == "endless" and mark in self._known:
            for host in self._node.hosts.all():
                if (host.namespace, host.digest) == (namespace, digest):
                    host.wire.send(Specialise(namespace, digest, 0))

    def _marked(self, mark: Mark) -> bool:
        if mark not in self._known and self._node.reader.one(divergences.MARKED, *mark) is not None:
            self._known.add(mark)
        return mark in self._known


def _problem(frame: Diverged) -> Problem | None:
    if len(frame.problem) > PROBLEM_BYTES_MAX:
        return None
    try:
        found = Problem.model_validate_json(frame.problem)
    except ValidationError:
        return None
    return found if found.reason == "REPLAY_DIVERGED" else None
