"""The nodes: what Ray says of them, and which of them take agents.

The gate's own takes them, and every other whose relay is here, and which Ray does not call lost. Draining one
empties its hosts and asks for no other there, so where it is the last that is open its agents wait: each says
so, their messages are kept, and undoing it goes on with them. One that is closed first keeps its hosts until it is
to be emptied: they are given nobody new, and their agents stay until each is moved. That a node is drained is a
record, by its name; so is the name, by Ray's id, for as long as the node lives.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import orjson

from controlplane.effects.controls import Answer, failed, soon
from controlplane.effects.naming import named
from controlplane.effects.node import Node
from controlplane.effects.placing import Host
from controlplane.resources.problems import problem
from controlplane.store import moving as sql
from schemas.base import canonical
from schemas.frames import Control, NodesSeen
from schemas.problem import Next

AGAIN_S = 1.0


class Asked(msgspec.Struct):
    """Whether the node shall be empty, or take agents again; without `empty` it is closed, and its agents stay."""

    principal: str
    undo: bool = False
    empty: bool = True
    reason: str = ""
    dry_run: bool = False
    patient: bool = True  # whether the answer waits a while for the end


class Nodes:
    """The nodes that this gate knows of, its own first."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._seen: Sequence[dict[str, Any]] | None = None
        self._names: dict[str, str] = {}  # of nodes, by Ray's ids
        self._kept: dict[str, str] = {}  # as they are recorded
        self._keeping = False
        self._lost: set[str] = set()  # Ray's ids; one that is lost never comes back under the same
        self.closed: set[str] = set()
        self.emptied: set[str] = set()  # of those that are closed

    @property
    def here(self) -> str:
        """The name of the gate's own."""
        return self._node.bounds.node

    def recover(self) -> None:
        """What was recorded before this start."""
        found = [(key.removeprefix(sql.CLOSED_PREFIX), since) for key, since in self._node.reader.rows(sql.ALL_CLOSED)]
        self.closed = {name for name, _ in found}
        self.emptied = {name for name, since in found if since}
        names = self._node.reader.rows(sql.ALL_NAMED)
        self._kept = {key.removeprefix(sql.NAME_PREFIX): name for key, name in names}
        self._names = dict(self._kept)

    def seen(self, frame: NodesSeen) -> None:
        """The placer says what Ray says; how a node calls itself becomes its name when it is new."""
        rows = orjson.loads(frame.nodes)
        self._names = named(rows, self.here, self._names, self.closed)
        seen = [it | {"node": self._names[it["ray_node_id"]]} for it in rows]
        self._seen = seen = sorted(seen, key=lambda it: (it["node"], it["ray_node_id"]))
        self._lost = {it["ray_node_id"] for it in seen if not it["alive"]}
        for node_id in self._lost:
            self._node.relays.doubt(node_id)
        if any(it["alive"] and not it["here"] for it in seen):
            self._node.relays.listen()
        self._keep()
        self._tell_hosts()
        self._node.hosts.ensure()

    def _keep(self) -> None:
        """Record how those that live are called, and forget the others; until that is so, once more after a while."""
        alive = {it["ray_node_id"] for it in self._seen or () if it["alive"] and not it["here"]}
        names = {node_id: name for node_id, name in self._names.items() if node_id in alive}
        if self._keeping or names == self._kept:
            return
        rows: list[Any] = [(sql.UNNAME, (sql.name_key(it),), -1) for it in self._kept.keys() - names.keys()]
        rows += [(sql.NAME, (sql.name_key(it), name), 1) for it, name in names.items() if self._kept.get(it) != name]
        self._keeping = True

        def kept(outcome: str, _detail: str) -> None:
            self._keeping = False
            if outcome == "ok":
                self._kept = names
                self._keep()
            else:
                asyncio.get_running_loop().call_later(AGAIN_S, self._keep)

        self._node.commit("named", rows, kept)

    def _tell_hosts(self) -> None:
        """Hosts that came before their node had a name have it now."""
        for host in self._node.hosts.all():
            if host.node != (name := self.name_of(host.wire.node)):
                host.node = name
                self._node.hosts.record(host)
                if self.leaves(host):
                    self._node.draining.empty(host)

    def name_of(self, node_id: str) -> str:
        """How a node is called, by Ray's id; the gate's own has none here."""
        return self._names.get(node_id, node_id[:12]) if node_id else self.here

    def is_lost(self, node_id: str) -> bool:
        """Whether Ray has given it up, for good."""
        return node_id in self._lost

    def open(self) -> Sequence[str]:
        """Ray's ids of the nodes that take agents; of the gate's own it is empty, and the first."""
        own = [] if self.here in self.closed else [""]
        others = [it for it in self._node.relays.nodes() if it not in self._lost]
        return own + [it for it in others if self.name_of(it) not in self.closed]

    def avoided(self) -> Sequence[str]:
        """Ray's ids of those that are alive and take none."""
        return sorted(it["ray_node_id"] for it in self._seen or () if it["alive"] and it["node"] in self.closed)

    @property
    def seen_by_ray(self) -> Sequence[dict[str, Any]] | None:
        """The nodes, by what Ray said last; None before it said anything."""
        return self._seen

    def list(self, done: Answer) -> None:
        done({"here": self.here, "closed": sorted(self.closed), "ray": self._seen or []})

    def drain(self, frame: Control, done: Answer) -> None:
        """Empty a node, or let it take agents again; the same again says how far it is."""
        asked, name = msgspec.json.decode(frame.argument, type=Asked), frame.agent
        known = {self.here, *self.closed, *self._names.values(), *(it.node for it in self._node.hosts.all())}
        if name not in known:
            look = [Next(operation="nodes.list", why="shows the nodes there are")]
            done(problem("NOT_FOUND", f"there is no node {name}", field="/node", next=look, kind="Node", node=name))
        elif asked.dry_run:
            done(self._progress(name))
        elif self._is_so(name, asked):
            self._until(name, asked, done)
        else:
            self._record(name, asked, done)

    def leaves(self, host: Host) -> bool:
        """Whether a host is on its way out from the moment it is here; where a node is only closed, spare ones are."""
        return host.node in self.emptied or (host.node in self.closed and not host.digest)

    def _is_so(self, name: str, asked: Asked) -> bool:
        if asked.undo:
            return name not in self.closed
        return name in (self.emptied if asked.empty else self.closed)

    def _record(self, name: str, asked: Asked, done: Answer) -> None:
        now, key = self._node.clock(), sql.closed_key(name)
        rows: list[Any] = [(sql.EMPTY, (key, repr(now)), 1) if asked.empty else (sql.CLOSE, (key,), 1)]
        if asked.undo:
            rows = [(sql.OPEN, (key,), 1)]
        if asked.undo or name not in self.closed:
            about = canonical({"node": name, "reason": asked.reason}).decode()
            kind = "node.opened" if asked.undo else "node.draining"
            rows.append((sql.EVENT_OF_NODE, (kind, now, asked.principal, about), 1))

        def recorded(outcome: str, detail: str) -> None:
            if outcome != "conflict" and failed(outcome, detail, done):  # a conflict: it is so already
                return
            for names, there in ((self.closed, True), (self.emptied, asked.empty)):
                if asked.undo:
                    names.discard(name)
                elif there:
                    names.add(name)
            self._until(name, asked, done)
            for host in self._of(name):
                if self.leaves(host):
                    self._node.draining.empty(host)
            self._node.hosts.ensure()

        self._node.commit("node", rows, recorded)

    def _of(self, name: str) -> Sequence[Host]:
        return [it for it in (*self._node.hosts.all(), *self._node.hosts.ending) if it.node == name]

    def _until(self, name: str, asked: Asked, done: Answer) -> None:
        """Answer when it is so, or with how far it is after a while."""
        hosts = self._of(name)
        if name not in self.closed or not asked.empty or not hosts or not asked.patient:
            done(self._progress(name))
            return
        told = soon(done, lambda: self._progress(name), self._node.bounds.move_wait_s)

        def ended() -> None:
            if not self._of(name):
                told(self._progress(name))

        for host in hosts:
            host.on_end.append(ended)

    def _progress(self, name: str) -> dict[str, Any]:
        hosts = self._of(name)
        return {
            "draining": name in self.closed,
            "done": name not in self.closed or not hosts,
            "hosts": len(hosts),
            "agents": sum(len(it.slots) for it in hosts),
        }
