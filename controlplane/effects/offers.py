"""What far sides offer over connections: kept by digest, and used only as it was accepted.

A family whose effects the far side says (`Pinning`) shows here what it has seen before any of it is used. What is
new, has changed or has gone is committed and told; what is new is accepted by itself where the connection says so, and
nothing was seen of it before. What could stall the gate, or can not be judged by, is kept with its fault.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from controlplane.effects.node import Node
from controlplane.effects.reading import Away
from controlplane.effects.turnref import Row
from controlplane.mesh.dataschema import schema_fault
from controlplane.protocols.argument_roles import guessed
from controlplane.protocols.scrubbing import scrubbed
from controlplane.resources.problems import problem
from controlplane.store import offers as sql
from controlplane.store.packed import pack, unpack
from controlplane.store.statements import EVENT
from schemas.base import PLANE_NAME, canonical
from schemas.frames import Control
from schemas.mcp_connection import McpConnection
from schemas.offers import Offered, Pin
from schemas.ports import Bound, Link, Pinning, Unreached
from schemas.problem import Problem, Refusal

log = logging.getLogger("steward.gate")
Answer = Callable[[dict[str, Any] | Problem], None]
ASKED_S_MAX = 20.0
KEEP_EVERY_S = 15.0
TOLD_MAX = 100
JUDGED_S_MAX = 2.0


@dataclass(frozen=True)
class News:
    """What differs from what was kept, by the names of tools; what is said of it now."""

    new: list[str]
    changed: list[str]
    gone: list[str]
    seen: Mapping[str, Offered]

    def __bool__(self) -> bool:
        return bool(self.new or self.changed or self.gone)


class Offers:
    """Implements `schemas.ports.Pins`."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.commands: Sequence[Sequence[str]] = node.bounds.mcp_commands
        self.variables: Sequence[str] = node.bounds.mcp_variables
        self._families: list[Pinning] = []
        self._writing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        for it in node.effectors.values():
            if isinstance(it, Bound):
                it.bind(self)
            if isinstance(it, Pinning):
                self._families.append(it)

    # For families

    def pin(self, link: Link, tool: str) -> Pin | None:
        """What is kept of one tool."""
        row = self._node.reader.one(sql.ONE, link.uid, tool)
        if row is None:
            return None
        digest, body, gone, accepted, accepted_body, roles = row
        seen = Offered.model_validate_json(unpack(body))
        if accepted is None:
            return Pin(seen, digest, bool(gone))
        before = seen if accepted == digest else Offered.model_validate_json(unpack(accepted_body))
        return Pin(seen, digest, bool(gone), accepted, before, orjson.loads(roles or "{}"))

    async def seen(self, link: Link, offered: Mapping[str, Offered]) -> None:
        """Keep what was seen; committed when this answers."""
        async with self._writing:
            try:
                rows = self._node.reader.rows(sql.KNOWN, link.uid)
                kept = {tool: (digest, bool(gone)) for tool, digest, gone in rows}
            except Away as away:
                raise Unreached(f"the tools of {link.name} can not be looked up: {away}") from away
            news = await asyncio.to_thread(_news, kept, offered)
            if not news:
                return
            first = not kept and isinstance(link.spec, McpConnection) and link.spec.options.accept == "first"
            made = _rows(link, news, self._node.clock(), first=first)
            written: asyncio.Future[str] = asyncio.get_running_loop().create_future()

            def done(outcome: str, detail: str) -> None:
                if not written.done():
                    written.set_result("" if outcome == "ok" else detail or outcome)

            self._node.commit("offers", made, done)
            if why := await written:
                raise Unreached(f"the tools of {link.name} can not be kept: {why}")

    def named(self, namespace: str, name: str) -> Link | None:
        return self._node.connections.named(namespace, name)

    def link(self, declared: Link) -> Link:
        return self._node.connections.link(declared)

    def generation(self, uid: str) -> int | None:
        """Of a connection that is there; None of one that is not."""
        row = self._node.reader.one(sql.LIVE, uid)
        return None if row is None else int(row[0])

    # For the gate

    def ask(self, frame: Control, done: Answer) -> None:
        """Look at what the far side of a connection offers, and answer when it is kept."""
        task = asyncio.get_running_loop().create_task(self._ask(orjson.loads(frame.argument), done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, asked: dict[str, str], done: Answer) -> None:
        secret = ""
        try:
            declared = self.named(asked["namespace"], asked["name"])
            family = next((it for it in self._families if declared and it.protocol == declared.spec.protocol), None)
            if declared is None or family is None:  # there is nothing to be asked
                done({"trouble": None})
                return
            link = self.link(declared)
            secret = link.secret
            async with asyncio.timeout(ASKED_S_MAX):
                await family.ask(link)
            done({"trouble": None})
        except Refusal as refusal:
            done({"trouble": scrubbed(refusal.problem.detail, secret)})
        except (Unreached, Away) as error:
            done({"trouble": scrubbed(str(error), secret)})
        except TimeoutError:
            done({"trouble": f"it did not answer within {ASKED_S_MAX:g} s"})
        except Exception as error:
            log.exception("asking what %s offers", asked.get("name"))
            done(problem("INTERNAL", f"asking broke: {type(error).__name__}", error=type(error).__name__))

    async def keeping(self) -> None:
        """Let go of sessions that nobody uses, for as long as the gate runs."""
        while True:
            await asyncio.sleep(KEEP_EVERY_S)
            for it in self._families:
                try:
                    await it.keep()
                except Away:
                    break
                except Exception:
                    log.exception("letting go of sessions")


def _news(kept: Mapping[str, tuple[str, bool]], offered: Mapping[str, Offered]) -> News:
    """What differs; what is new is judged, which takes a while, so it is done beside the loop.

    Schemas can be made to take long: what there was no time for is news once more at the next look.
    """
    until = time.monotonic() + JUDGED_S_MAX
    seen: dict[str, Offered] = {}
    for name, it in offered.items():
        if kept.get(name) != (it.digest, False) and time.monotonic() < until:
            seen[name] = _judged(it)
    return News(
        new=[name for name in seen if name not in kept],
        changed=[name for name in seen if name in kept],
        gone=[name for name, (_, gone) in kept.items() if name not in offered and not gone],
        seen=seen,
    )


def _judged(it: Offered) -> Offered:
    """With what is wrong with its schemas, if anything is."""
    if it.fault:
        return it
    for what, schema in (("input", it.input_schema), ("output", it.output_schema)):
        if schema is not None and (fault := schema_fault(schema)) is not None:
            return it.model_copy(update={"fault": f"its {what} schema can not be used: {fault}"})
    return it


def _rows(link: Link, news: News, now: float, *, first: bool) -> list[Row]:
    """What is kept, and the event that says so."""
    rows: list[Row] = []
    for name, it in news.seen.items():
        rows.append((sql.SEEN, (name, it.digest, pack(it.model_dump_json()), now, link.uid), -1))
        if first and not it.fault:
            roles = canonical(guessed(it.input_schema)).decode()
            rows.append((sql.ACCEPT, (roles, PLANE_NAME, now, link.uid, name, it.digest), -1))
    rows += [(sql.GONE, (now, link.uid, name), -1) for name in news.gone]
    named = {"new": news.new, "changed": news.changed, "gone": news.gone}
    data = {what: sorted(names)[:TOLD_MAX] for what, names in named.items()} | {"accepted": first}
    about = ("connection.tools_changed", now, "Connection", link.namespace, link.name, None, None)
    return [*rows, (sql.FORGOTTEN, (link.uid,), -1), (EVENT, (*about, canonical(data).decode()), 1)]
