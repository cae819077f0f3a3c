"""Scopes: what a turn or an agent spawned for itself ends with it, and nothing of it is left (law 14).

That a scope is over is written by the unit that ends its turn, or that removes its agent; here its children are
taken away, some at a time, as if each had been deleted: its resource first, then all of its running side. A child
that is removed ends its own scopes by that, so a tree ends from its root on. Whatever dies in between, the next look
finds what is left, by the records alone; a scope is done when no agent names it any more.
"""

from functools import partial
from typing import Any

import orjson

from controlplane.effects.node import MESSAGES, Node
from controlplane.effects.surviving import survived
from controlplane.mesh.traits import traits_of
from controlplane.store import discovery, statements
from controlplane.store import scopes as sql
from schemas.base import canonical
from schemas.problem import Problem

AT_ONCE = 100


class Scopes:
    """Takes away what ended scopes have left."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._going: set[str] = set()

    def sweep(self) -> None:
        """Some of what is left; what is done is noted."""
        if self._node.reader.one(sql.UNCLEARED) is None:
            return
        for row in self._node.reader.rows(sql.LEFT, AT_ONCE):
            if row[1] not in self._going:
                survived(partial(self._take, row), "a child of an ended scope")
        if not self._going:
            self._node.commit("cleared", [(sql.EMPTY, (self._node.clock(),), -1)], _done, MESSAGES)

    def _take(self, row: tuple[Any, ...]) -> None:
        scope, uid, namespace, name, labels, spec, generation = row
        if spec is None:
            self._going.add(uid)
            self._remove(uid)
            return
        now = self._node.clock()
        told = canonical({"uid": uid, "generation": generation, "scope": scope}).decode()
        rows: list[Any] = [(sql.BURY, (now, now, uid), 1)]
        rows += [(sql.UNLABEL, (namespace, name, *it), -1) for it in orjson.loads(labels).items()]
        rows += [
            (discovery.UNTRAIT, (kind, namespace, value, name), -1)
            for kind, value in sorted(traits_of(orjson.loads(spec)))
        ]
        rows.append((statements.EVENT, ("resource.deleted", now, "Agent", namespace, name, None, None, told), 1))
        self._going.add(uid)
        try:
            self._node.commit("scope", rows, partial(self._taken, uid), MESSAGES)
        except BaseException:  # whatever it is: it is looked at again
            self._going.discard(uid)
            raise

    def _taken(self, uid: str, outcome: str, _detail: str) -> None:
        if outcome == "ok":
            self._remove(uid)
        else:  # it was deleted meanwhile, or the store is away: it is looked at again
            self._going.discard(uid)

    def _remove(self, uid: str) -> None:
        def removed(_found: dict[str, Any] | Problem) -> None:
            self._going.discard(uid)
            if not self._going:
                self._node.sweep_soon()

        try:
            self._node.removing(uid, removed)
        except BaseException:  # whatever it is: it is looked at again
            self._going.discard(uid)
            raise


def _done(_outcome: str, _detail: str) -> None:
    """Noted, or it is noted the next time."""
