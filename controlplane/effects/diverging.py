"""What hosts found when they ran committed turns again: it marks the code, once for each kind of first difference.

A host is believed of its own namespace and digest alone, and of a turn that has committed there; the mark is written
behind that commit, together with its event. Who says the same again changes nothing.
"""

import logging

from pydantic import ValidationError

from controlplane.effects.node import Node
from controlplane.effects.placing import Host
from controlplane.store import divergences
from schemas.base import canonical
from schemas.divergence import FIRSTS
from schemas.problem import Problem
from schemas.wire import Diverged

log = logging.getLogger("steward.gate")
PROBLEM_BYTES_MAX = 65_536

Mark = tuple[str, str, str]  # namespace, digest, kind of difference


class Diverging:
    """The marks that this gate knows of."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._known: set[Mark] = set()

    def diverged(self, host: Host, frame: Diverged) -> None:
        """A turn of the host's code did not come to the same."""
        mark = host.namespace, host.digest, frame.first
        if mark in self._known or frame.first not in FIRSTS:
            return
        if (found := _problem(frame)) is None:
            log.warning("host %s says that %s differed, and not how", host.host_id, frame.turn_id)
            return
        now, text = self._node.clock(), canonical(found.model_dump(mode="json")).decode()
        data = {"digest": host.digest, "first": frame.first, "detail": found.detail}
        rows = [
            (divergences.MARK, (frame.first, text, now, frame.turn_id, host.digest, host.namespace), 1),
            (divergences.TELL, (now, canonical(data).decode(), *mark), 1),
        ]
        self._known.add(mark)
        self._node.commit("diverged", rows, lambda outcome, _: self._written(mark, frame, outcome))

    def _written(self, mark: Mark, frame: Diverged, outcome: str) -> None:
        """What was not written is marked already, or there is no such turn: then the next one may say it."""
        if outcome == "ok":
            log.warning("code %s of namespace %s differed in a replay of %s", mark[1], mark[0], frame.turn_id)
            return
        self._known.discard(mark)
        if self._node.reader.one(divergences.MARKED, *mark) is not None:
            self._known.add(mark)


def _problem(frame: Diverged) -> Problem | None:
    if len(frame.problem) > PROBLEM_BYTES_MAX:
        return None
    try:
        found = Problem.model_validate_json(frame.problem)
    except ValidationError:
        return None
    return found if found.reason == "REPLAY_DIVERGED" else None
