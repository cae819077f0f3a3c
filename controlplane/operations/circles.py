"""What is read to find circles through agents: who reads the channels that routes lead to, and who was heard where.

It goes from what is decided onward, level by level, each by an index, and no further than so many levels and records:
a circle that is longer, or beyond them, is not found. Nothing leaves the namespace of what is decided: who may propose
there, and who may read the plan, may read its topology and its members, and no other namespace's.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlmodel import Session

from controlplane.operations.loops import Heard, Key, Leads, Node, Talk, Ways, leads
from controlplane.operations.observing import chunks, many, rows
from controlplane.operations.watches import channels_of
from controlplane.operations.world import Wanted

LEVELS_MAX = 40
RECORDS_MAX = 5_000
OF_FLEET_MAX = 100  # agents of a fleet are looked at
MEMBERS = many(
    "SELECT c.name AS channel, a.name AS agent FROM channel c JOIN subscription s ON s.channel = c.uid"
    " JOIN agent a ON a.uid = s.agent WHERE c.namespace = :namespace AND c.name IN :names AND a.namespace = :namespace"
    " LIMIT :most",
    "names",
)
TALKS = many(
    "SELECT source, channel, name, messages, since, last FROM traffic"
    " WHERE source IN :sources AND namespace = :namespace LIMIT :most",
    "sources",
)


def ways_of(namespace: str, there: Iterable[Leads], wanted: Iterable[Wanted], heard: Heard) -> Ways:
    """Who sets whom to work in a namespace, once what is wanted is committed."""
    decided = [it for it in wanted if it.kind == "Route" and it.namespace == namespace]
    names = {it.name for it in decided}
    ours = (leads(it.name, it.spec) for it in decided if it.action == "apply")
    return Ways([*(it for it in there if it.name not in names), *ours], heard)


def agents_of(it: Wanted) -> list[str]:
    """The agents that a decision makes, or takes away; of a large fleet the first ones."""
    if it.kind == "Agent":
        return [it.name]
    if it.kind != "Fleet" or it.action != "apply":
        return []
    return [f"{it.name}-{place}" for place in range(min(it.spec["replicas"], OF_FLEET_MAX))]


def watched(it: Wanted) -> list[str]:
    """The channels that its agents shall watch."""
    if it.action != "apply" or it.kind not in ("Agent", "Fleet"):
        return []
    agents = it.spec if it.kind == "Agent" else it.spec["template"]["spec"]
    return [one["channel"] for one in channels_of(agents["watches"])]


def read_talks(session: Session, namespace: str, agents: Iterable[str], most: int) -> list[Talk]:
    """Where these agents were heard, and by whom."""
    found: list[Talk] = []
    for chunk in chunks([f"/{namespace}/agents/{it}" for it in agents]):
        if len(found) < most:
            listed = rows(session, TALKS, sources=chunk, namespace=namespace, most=most - len(found))
            found += map(_talk, listed)
    return found


def read_heard(session: Session, namespace: str, there: Iterable[Leads], wanted: Sequence[Wanted]) -> Heard:
    """What is to be known, from the routes and agents that are decided onward."""
    decided = [it for it in wanted if it.namespace == namespace]
    reading = _Reading(session, namespace, decided)
    ways = ways_of(namespace, there, decided, Heard(reading.members, reading.talks))
    level = {Node("Route", it.name) for it in decided if it.kind == "Route" and it.action == "apply"}
    level |= {Node("Agent", name) for it in decided if watched(it) for name in agents_of(it)}
    seen, left = set(level), dict[Key, list[Leads]]()
    for _ in range(LEVELS_MAX):
        reading.read(level)
        level = {to for it in level for to, _ in ways.onward(it, left, events=True, observed=True)} - seen
        seen |= level
        if not level or reading.left <= 0:
            break
    return ways.heard


class _Reading:
    """What was read by now, and how many records more may be."""

    def __init__(self, session: Session, namespace: str, decided: Sequence[Wanted]) -> None:
        self._session, self._namespace = session, namespace
        self._decided = {name for it in decided for name in agents_of(it)}
        self._watchers: dict[str, list[str]] = {}
        for it in decided:
            for channel in watched(it):
                self._watchers.setdefault(channel, []).extend(agents_of(it))
        self.left = RECORDS_MAX
        self.members: dict[str, list[str]] = {}
        self.talks: dict[str, list[Talk]] = {}

    def read(self, level: Iterable[Node]) -> None:
        channels = [it.name for it in level if it.kind == "Channel"]
        agents = [it.name for it in level if it.kind == "Agent"]
        for name in channels:
            self.members[name] = list(self._watchers.get(name, ()))
        for chunk in chunks(channels):
            found = rows(self._session, MEMBERS, namespace=self._namespace, names=chunk, most=max(0, self.left))
            self.left -= len(found)
            for it in found:
                if it["agent"] not in self._decided:  # of those, the spec counts that they will have
                    self.members[it["channel"]].append(it["agent"])
        talks = read_talks(self._session, self._namespace, agents, max(0, self.left))
        self.left -= len(talks)
        once: dict[tuple[str, Node], Talk] = {}
        for talk in talks:
            place = talk.source, talk.to
            once[place] = _both(once[place], talk) if place in once else talk
        for (source, to), talk in once.items():
            if to != Node("Agent", source):
                self.talks.setdefault(source, []).append(talk)


def _talk(row: Mapping[str, Any]) -> Talk:
    """As it was counted; by a channel of another namespace, it is known who heard it, and no more."""
    source, channel = row["source"].rpartition("/")[2], row["channel"]
    own = "" if "/" in channel else channel
    return Talk(source, own, row["name"], int(row["messages"]), row["since"], row["last"])


def _both(one: Talk, other: Talk) -> Talk:
    """What two heard by one channel: the same messages, as far as anybody knows."""
    first, newest = min(one.since, other.since), max(one.last, other.last)
    return one._replace(messages=max(one.messages, other.messages), since=first, last=newest)
