"""Finding agents by name, label, capability or meaning.

What fits exactly is a matter of queries. Meaning is a comparison of vectors: the text that is asked for
with the texts that agents mean, each different text once however many agents mean it, and each kept under
its mark. Of texts without a vector some are embedded at each call, so that a call stays short; the answer
says when some are left. Suspended agents are found like any other: they are rows, and a message wakes them.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol, TypeVar

import orjson
from sqlmodel import Session

from controlplane.mesh import candidates
from controlplane.mesh.candidates import Asked, Key, Mark
from controlplane.mesh.others import Other, fits, others
from controlplane.mesh.traits import mark_of, meaning_of
from controlplane.store.store import Store
from controlplane.store.unit import Statement
from schemas.base import NAME_PATTERN
from schemas.discovery import FindInput, Found
from schemas.ports import Embed

T = TypeVar("T")
COMPARED_MAX = 5_000  # different texts; of who meets other conditions, as many agents
EMBEDDED_MAX = 64  # in one call: about a second
RECENT_MAX = 1_000  # vectors that are also kept at hand: some 1.5 MB
NEAR_LEAST = 0.2  # what is farther has nothing to do with it
Keep = Callable[[str, str, bytes], Awaitable[None]]


class Reads(Protocol):
    """Runs a query on one snapshot, and never on a loop that others wait for."""

    async def __call__(self, query: Callable[[Session], T], /) -> T: ...


class Near(NamedTuple):
    """A text, how near it is, and who means it where that is known already."""

    score: float
    mark: Mark
    keys: tuple[Key, ...] | None


class Hit(NamedTuple):
    key: Key
    found_by: str
    score: float | None = None


class Finder:
    """Finds agents within what its caller sees. `keep` stores a vector; it may do nothing."""

    def __init__(self, read: Reads, embed: Embed, keep: Keep) -> None:
        self._read = read
        self._embed = embed
        self._keep = keep
        self._recent: dict[Mark, bytes] = {}

    async def find(self, given: FindInput, namespaces: tuple[str, ...] | None, asker: Key | None = None) -> Found:
        """The best of those who fit; `namespaces` are all that may be looked into, None: every one. For an agent,
        `asker`, what invitations open to it is looked into, too."""
        asked = Asked(namespaces, given.name, dict(given.labels or {}), given.capability)
        beside, whole = await self._read(lambda session: others(session, asked, asker))
        hits, complete = await self._hits(given, asked, beside)
        once = list({it.key: it for it in reversed(hits)}.values())[::-1]
        shown = once[: given.limit]
        views = {it.key: it.view for it in beside}
        rows = await self._read(
            lambda session: candidates.rows(session, [it.key for it in shown if it.key not in views])
        )
        views |= {Key(row.namespace, row.name): candidates.view(row, "filter", None) for row in rows}
        items = [
            views[it.key].model_copy(update={"found_by": it.found_by, "score": it.score})
            for it in shown
            if it.key in views
        ]
        return Found(items=items, more=len(once) > given.limit, complete=complete and whole)

    async def _hits(self, given: FindInput, asked: Asked, beside: Sequence[Other]) -> tuple[list[Hit], bool]:
        """Who fits, the best first, one more than is asked for; and whether all that mean something were compared."""
        most, text = given.limit + 1, given.meaning or given.query
        if text is None:
            by = "name" if given.name else "capability" if given.capability else "filter"
            keys = await self._read(lambda session: candidates.names(session, asked, most))
            return [Hit(key, by) for key in sorted([*keys, *(it.key for it in beside)])[:most]], True
        hits: list[Hit] = []
        if given.query is not None:
            hits = await self._read(lambda session: _named(session, given.query or "", asked, most, beside))
        near, complete = await self._near(text, asked, beside)
        for it in near:
            if len({hit.key for hit in hits}) >= most:
                break
            hits += [Hit(key, "meaning", it.score) for key in await self._members(it, asked, most)]
        return hits, complete

    async def _near(self, text: str, asked: Asked, beside: Sequence[Other]) -> tuple[list[Near], bool]:
        """The texts that are near to this one, the nearest first."""
        groups, whole = await self._read(lambda session: _groups(session, asked))
        said = {Mark(it.key.namespace, mark_of(it.text)): it.text for it in beside if it.text}
        marks = list(dict.fromkeys([*groups, *said]))
        if not marks:
            return [], whole
        known = {mark: self._recent[mark] for mark in marks if mark in self._recent}
        unknown = [mark for mark in marks if mark not in known]
        known |= await self._read(lambda session: candidates.vectors(session, unknown))
        missing = [mark for mark in unknown if mark not in known]
        known |= await self._embedded(missing[:EMBEDDED_MAX], said)
        (to,) = await self._embed.embed([text])
        compared = [mark for mark in marks if mark in known]
        scores = self._embed.nearness(to, [known[mark] for mark in compared])
        score_of = {mark: round(it, 6) for mark, it in zip(compared, scores, strict=True) if it >= NEAR_LEAST}
        near = [Near(score_of[mark], mark, keys) for mark, keys in groups.items() if mark in score_of]
        near += [
            Near(score_of[mark], mark, (it.key,))
            for it in beside
            if it.text and (mark := Mark(it.key.namespace, mark_of(it.text))) in score_of
        ]
        near.sort(key=lambda it: (-it.score, it.mark))
        return near, whole and len(missing) <= EMBEDDED_MAX

    async def _embedded(self, marks: Sequence[Mark], said: Mapping[Mark, str]) -> dict[Mark, bytes]:
        """Vectors of texts that had none, kept for the next time; `said` are texts that are known."""
        texts = {mark: said[mark] for mark in marks if mark in said}
        others = [mark for mark in marks if mark not in said]
        texts |= await self._read(lambda session: _texts(session, others))
        if not texts:
            return {}
        found = dict(zip(texts, await self._embed.embed(list(texts.values())), strict=True))
        if len(self._recent) + len(found) > RECENT_MAX:
            self._recent.clear()
        for mark, vector in found.items():
            self._recent[mark] = vector
            await self._keep(mark.namespace, mark.value, vector)
        return found

    async def _members(self, near: Near, asked: Asked, most: int) -> Iterable[Key]:
        if near.keys is not None:
            return near.keys
        return await self._read(lambda session: candidates.names(session, asked, most, near.mark))


def reading_finder(url: str, embed: Embed) -> Finder:
    """One that writes nothing: the vectors that it makes are kept at hand alone."""

    async def keep(namespace: str, mark: str, vector: bytes) -> None:
        """The plane keeps those that it makes itself."""

    return Finder(Store(url, _NoWriter()).read_aside, embed, keep)


class _NoWriter:
    async def write(self, statements: list[Statement]) -> bool:
        raise NotImplementedError("a finder only reads")


def _named(session: Session, query: str, asked: Asked, most: int, beside: Sequence[Other]) -> list[Hit]:
    """By what may be a name or a capability: the very name, the capability, names that begin so."""
    word = query.strip().lower().replace(" ", "-")
    if not re.fullmatch(NAME_PATTERN, word):
        return []

    def fitting(changed: Asked, by: str) -> list[Hit]:
        keys = [*candidates.names(session, changed, most), *(it.key for it in beside if fits(it.view, changed))]
        return [Hit(key, by) for key in sorted(keys)]

    begun = [] if asked.name is not None else fitting(replace(asked, name=word), "name")
    able = [] if asked.capability is not None else fitting(replace(asked, capability=word), "capability")
    return [*(it for it in begun if it.key.name == word), *able, *begun]


def _groups(session: Session, asked: Asked) -> tuple[dict[Mark, tuple[Key, ...] | None], bool]:
    """The texts to compare with; with other conditions, those of who meets them. And whether these are all."""
    if asked.name is None and not asked.labels and asked.capability is None:
        marks = candidates.marks(session, asked, COMPARED_MAX + 1)
        return dict.fromkeys(marks[:COMPARED_MAX]), len(marks) <= COMPARED_MAX
    keys = candidates.names(session, asked, COMPARED_MAX + 1)
    groups: dict[Mark, tuple[Key, ...] | None] = {}
    for row in candidates.rows(session, keys[:COMPARED_MAX]):
        if text := meaning_of(orjson.loads(row.spec)):
            mark = Mark(row.namespace, mark_of(text))
            groups[mark] = (*(groups.get(mark) or ()), Key(row.namespace, row.name))
    return groups, len(keys) <= COMPARED_MAX


def _texts(session: Session, marks: Sequence[Mark]) -> dict[Mark, str]:
    """What the marks stand for, where somebody still says so."""
    found: dict[Mark, str] = {}
    for mark in marks:
        spec = candidates.one_of(session, mark)
        text = "" if spec is None else meaning_of(orjson.loads(spec))
        if mark_of(text) == mark.value:
            found[mark] = text
    return found
