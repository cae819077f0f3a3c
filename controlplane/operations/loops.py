"""Circles of routes that go by the feedback log: what their working tells is what one of them takes. Pure.

A route sets others to work by the channels that it publishes to, and by the events that its work may make: about its
worker, and about the agent that it hands on to. Whether such an event comes is not known before (a message must fail, a
budget run out, a filter let it through), so that a circle is possible, not certain: it is told, not refused.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from controlplane.mesh.events import of_types
from controlplane.operations.workers import worker_name

KIND = "Agent"
TOLD = (  # what is told of an agent, without an operator, because it handles a message
    "message.dead_lettered", "turn.failed", "turns.summary", "answer.late", "agent.paused",
    "effect.denied", "effect.refused", "effect.held", "effect.in_doubt",
)  # fmt: skip
Key = tuple[str, str | None]  # a channel by its name, or the agent that an event is about: without one, any


class Leads(NamedTuple):
    """What a route takes, and what it sets to work: `agents` are its worker, and whom it hands on to."""

    name: str
    channel: str | None
    events: Mapping[str, Any] | None
    channels: tuple[str, ...]
    agents: tuple[str, ...]

    @property
    def types(self) -> tuple[str, ...]:
        """The events that work makes, of those that it takes."""
        if self.events is None or self.events["kind"] not in (None, KIND):
            return ()
        return tuple(it for it in TOLD if of_types(self.events["types"], it))

    def hears(self, agent: str) -> bool:
        """Whether it takes what is told of this agent; of its own it does only if it says so."""
        return self.events is not None and (self.events["own"] or agent != worker_name(self.name))


class Step(NamedTuple):
    """A route that sets the next one to work, and by which events; by none where it goes by a channel."""

    route: str
    types: tuple[str, ...]


def leads(name: str, spec: Mapping[str, Any]) -> Leads:
    """What is to be known of a route here."""
    source, ends = spec["source"], [it for it in (spec["sink"], spec["reply"]) if it is not None]
    channels = tuple(it["channel"] for it in ends if "channel" in it)
    agents = (worker_name(name), *(it["agent"] for it in ends if "agent" in it))
    return Leads(name, source.get("channel"), source.get("events"), channels, agents)


class Ways:
    """Which routes of a namespace set which to work."""

    def __init__(self, routes: Iterable[Leads]) -> None:
        self._by: dict[Key, list[Leads]] = {}
        for it in routes:
            if it.channel is not None:
                self._by.setdefault(("", it.channel), []).append(it)
            if it.events is not None and it.types:
                self._by.setdefault((KIND, it.events["name"]), []).append(it)

    def circle(self, start: Leads) -> list[Step]:
        """The shortest way from a route back to it; none where there is none."""
        left: dict[Key, list[Leads]] = {}  # those that nothing has set to work yet: a key is gone through once
        ways: dict[str, list[Step]] = {}
        waiting: deque[tuple[Leads, list[Step]]] = deque([(start, [])])
        while waiting and start.name not in ways:
            here, way = waiting.popleft()
            for there, types in self._next(here, left):
                if there.name not in ways:
                    ways[there.name] = [*way, Step(here.name, types)]
                    waiting.append((there, ways[there.name]))
        return ways.get(start.name, [])

    def _next(self, here: Leads, left: dict[Key, list[Leads]]) -> Iterator[tuple[Leads, tuple[str, ...]]]:
        """The routes that a route sets to work, and that no other has before."""
        for channel in here.channels:
            key: Key = ("", channel)
            yield from ((it, ()) for it in left.get(key, self._by.get(key, ())))
            left[key] = []
        for agent in here.agents:
            for key in ((KIND, agent), (KIND, None)):
                found = left.get(key, self._by.get(key, []))
                left[key] = [it for it in found if not it.hears(agent)]
                yield from ((it, it.types) for it in found if it.hears(agent))
