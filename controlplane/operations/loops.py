"""Circles of routes that are possible and not certain: by the feedback log, or through agents. Pure.

A route sets others to work by the channels that it publishes to, by the agent that it hands on to, and by the events
that its work may make: about its worker, and about agents that take what it brings. Whether such an event comes is not
known before (a message must fail, a budget run out, a filter let it through). Nor is what an agent does with a message:
only what it did before, as traffic was counted. So these circles are told, not refused.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

from controlplane.mesh.events import of_types
from controlplane.operations.workers import worker_name

KIND = "Agent"
TOLD = (  # what is told of an agent, without an operator, because it handles a message
    "message.dead_lettered", "turn.failed", "turns.summary", "answer.late", "agent.paused",
    "effect.denied", "effect.refused", "effect.held", "effect.in_doubt",
)  # fmt: skip
STEPS_MAX = 200_000  # are gone for all circles of one plan together: half a second
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


class Node(NamedTuple):
    """A route, a channel or an agent of the namespace."""

    kind: Literal["Route", "Channel", "Agent"]
    name: str


class Talk(NamedTuple):
    """What was heard from an agent: by a channel of the namespace, or (without one) by another agent."""

    source: str
    channel: str
    name: str
    messages: int
    since: float
    last: float

    @property
    def to(self) -> Node:
        return Node("Channel", self.channel) if self.channel else Node("Agent", self.name)


@dataclass(frozen=True)
class Heard:
    """Who reads channels of a namespace, and who was heard where, as far as routes lead there."""

    members: Mapping[str, Iterable[str]] = field(default_factory=dict)
    talks: Mapping[str, Iterable[Talk]] = field(default_factory=dict)


class Step(NamedTuple):
    """Who sets the next one to work, and how: by events of these types, by what was observed, or as it is declared."""

    node: Node
    types: tuple[str, ...] = ()
    talk: Talk | None = None


def leads(name: str, spec: Mapping[str, Any]) -> Leads:
    """What is to be known of a route here."""
    source, ends = spec["source"], [it for it in (spec["sink"], spec["reply"]) if it is not None]
    channels = tuple(it["channel"] for it in ends if "channel" in it)
    agents = (worker_name(name), *(it["agent"] for it in ends if "agent" in it))
    return Leads(name, source.get("channel"), source.get("events"), channels, agents)


class Ways:
    """Who sets whom to work in a namespace."""

    def __init__(self, routes: Iterable[Leads], heard: Heard | None = None) -> None:
        self.heard = heard or Heard()
        self.steps = STEPS_MAX
        self._routes = {it.name: it for it in routes}
        self._workers = {worker_name(it) for it in self._routes}
        self._by: dict[Key, list[Leads]] = {}
        self._hearing = any(it.types for it in self._routes.values())
        for it in self._routes.values():
            if it.channel is not None:
                self._by.setdefault(("", it.channel), []).append(it)
            if it.events is not None and it.types:
                self._by.setdefault((KIND, it.events["name"]), []).append(it)

    def circle(self, start: Node, *, events: bool, observed: bool) -> list[Step]:
        """The shortest way from a route or an agent back to it that passes a route; none where there is none."""
        if not self._may_return(start, events=events, observed=observed):
            return []
        left: dict[Key, list[Leads]] = {}  # those that no event has set to work yet
        begin, end = (start, start.kind == "Route"), (start, True)
        came: dict[tuple[Node, bool], tuple[tuple[Node, bool], Step]] = {}
        waiting = deque([begin])
        while waiting and end not in came and self.steps > 0:
            here = waiting.popleft()
            for there, step in self.onward(here[0], left, events=events, observed=observed):
                self.steps -= 1
                place = there, here[1] or there.kind == "Route"
                if place not in came:
                    came[place] = here, step
                    waiting.append(place)
        way: list[Step] = []
        place = end
        while place in came and (not way or place != begin):
            place, step = came[place]
            way.insert(0, step)
        return way

    def _may_return(self, start: Node, *, events: bool, observed: bool) -> bool:
        """Whether anything could set it to work at all: most routes are seen here to be in no circle."""
        if start.kind != "Route":
            return True
        if events and self._hearing:
            return True
        channel = self._routes[start.name].channel
        return channel is not None and (channel in self._led or (observed and channel in self._spoken))

    @cached_property
    def _led(self) -> frozenset[str]:
        return frozenset(channel for it in self._routes.values() for channel in it.channels)

    @cached_property
    def _spoken(self) -> frozenset[str]:
        return frozenset(talk.channel for talks in self.heard.talks.values() for talk in talks)

    def onward(
        self, here: Node, left: dict[Key, list[Leads]], *, events: bool, observed: bool
    ) -> Iterator[tuple[Node, Step]]:
        """Whom it sets to work, and how; a route by events only if it is among those that are `left`."""
        if here.kind == "Channel":
            yield from ((Node("Route", it.name), Step(here)) for it in self._by.get(("", here.name), ()))
            yield from ((Node("Agent", it), Step(here)) for it in self._agents(self.heard.members.get(here.name, ())))
            return
        if here.kind == "Route":
            route = self._routes[here.name]
            yield from ((Node("Channel", it), Step(here)) for it in route.channels)
            yield from ((Node("Agent", it), Step(here)) for it in self._agents(route.agents))
            speaks = worker_name(here.name)
        else:
            speaks = here.name
            for talk in self.heard.talks.get(here.name, ()) if observed else ():
                if talk.channel or talk.name not in self._workers:  # what goes to a worker itself goes no further
                    yield talk.to, Step(here, talk=talk)
        yield from self._told(here, speaks, left) if events else ()

    def _told(self, here: Node, agent: str, left: dict[Key, list[Leads]]) -> Iterator[tuple[Node, Step]]:
        """The routes that take what is told of an agent, and that no other has set to work before."""
        for key in ((KIND, agent), (KIND, None)):
            found = left.get(key, self._by.get(key, []))
            left[key] = [it for it in found if not it.hears(agent)]
            yield from ((Node("Route", it.name), Step(here, it.types)) for it in found if it.hears(agent))

    def _agents(self, names: Iterable[str]) -> Iterator[str]:
        return (it for it in names if it not in self._workers)
