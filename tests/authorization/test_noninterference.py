"""Two worlds that differ only in what is foreign answer a principal identically, whatever it asks.

Everything that can name something is asked for what is foreign, and everything of the principal's own is
asked for again: answers, events, counts, hints, pages, plans, Problems and their metadata must be the
same, to the letter, once ids and times are marked.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from controlplane.resources.catalogue import OPERATIONS
from controlplane.resources.operation import Operation
from schemas.problem import Refusal
from tests.authorization import cases
from tests.authorization.surfaces import WAYS, Answer, rpc
from tests.authorization.telling import Telling
from tests.authorization.work import worked
from tests.authorization.worlds import World, standing
from tests.conftest import SOAK

pytestmark = pytest.mark.anyio

LABELS = ("operator", "admin of two", "viewer", "admin", "agent", "operator of two")
STEPS_MAX = 40
FIRST = ("read", "change", "destroy")


class Pair:
    """Both worlds, asked alike."""

    def __init__(self, full: World, bare: World) -> None:
        self.full, self.bare = full, bare
        self.foreign = full.foreign
        self.known = self.foreign | {name: full.own[name] for name in ("spanning", "spanning_plan")}
        whole = SOAK or full.store.dialect == "sqlite"  # on the other database: what is asked, by fewer
        self.labels = LABELS if whole else LABELS[:2]
        self._ways = tuple(WAYS) if whole else ("call",)
        self._told = {id(full): Telling(), id(bare): Telling()}

    def ways(self, operation: Operation) -> tuple[str, ...]:
        """What acts is done once."""
        acts = operation.imperative or operation.name == "plans.commit"
        return ("call",) if acts else self._ways

    async def require_same(self, way: str, label: str, operation: Operation, case: cases.Case) -> None:
        """Ask both; `case` holds what the full world calls it, `self._own` translates ids of ours."""
        asking = (self._ask(world, way, label, operation, case) for world in (self.full, self.bare))
        answers = await asyncio.gather(*asking)
        assert answers[0] == answers[1], f"{operation.name} by {way} as {label}: {case.given}{_first(*answers)}"

    async def _ask(self, world: World, way: str, label: str, operation: Operation, case: cases.Case) -> Any:
        given = self._own(world, case.given)
        answer: Answer = await WAYS[way](world.client, world.plane.headers(label), operation, given)
        if operation.name == "plans.commit" and answer.outcome == "ok":
            await world.settle(_change_of(answer.body))
        return answer.status, answer.outcome, answer.challenge, self._told[id(world)].of(answer.body)

    def _own(self, world: World, value: Any) -> Any:
        """The input with the full world's own ids replaced by those of the world that is asked."""
        if isinstance(value, dict):
            return {key: self._own(world, it) for key, it in value.items()}
        if isinstance(value, list):
            return [self._own(world, it) for it in value]
        known = [key for key, it in self.full.own.items() if it == value]
        return world.own[known[0]] if known else value

    async def require_same_rpc(self, label: str, method: str, about: str | None = None, **given: Any) -> Any:
        told, bodies = [], []
        for world in (self.full, self.bare):
            answer = await rpc(world.client, world.plane.headers(label), "/mcp", method, about, **given)
            bodies.append(answer.json())
            told.append((answer.status_code, self._told[id(world)].of(bodies[-1])))
        assert told[0] == told[1], (label, method, given)
        return bodies[0]


def _first(one: Any, other: Any) -> str:
    """Where two answers part."""
    ours, theirs = str(one), str(other)
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    return f"\nfull: …{ours[max(0, at - 200) : at + 200]}\nbare: …{theirs[max(0, at - 200) : at + 200]}"


def _change_of(body: dict[str, Any]) -> str:
    found: dict[str, Any] = body.get("output", body)
    found = found.get("result", {}).get("structuredContent", {}).get("data", found)
    change_id: str = found["change_id"]
    return change_id


@pytest.fixture(scope="module", params=["sqlite", "postgresql"] if SOAK else ["sqlite"])
async def pair(
    request: pytest.FixtureRequest, anyio_backend: str, _migrated_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Pair]:
    """A full and a bare world; in a soak on both databases, whose statements are the same."""
    async with AsyncExitStack() as stack:
        worlds = []
        for name in ("full", "bare"):
            if request.param == "sqlite":
                path = tmp_path_factory.mktemp(name) / "steward.db"
                shutil.copy(_migrated_file, path)
                url = f"sqlite:///{path}"
            else:
                server = request.getfixturevalue("postgres")
                url = server.lend()
                stack.callback(server.give_back, url)
            worlds.append(await stack.enter_async_context(standing(url, full=name == "full")))
        yield Pair(*worlds)


def in_order() -> list[Operation]:
    """What reads first, then what acts, so that every question is asked of a world at rest."""
    return sorted(OPERATIONS.values(), key=lambda it: (it.imperative, FIRST.index(it.effect)))


def questions(pair: Pair, operation: Operation) -> Iterator[cases.Case]:
    """What is foreign, and what is the principal's own."""
    yield cases.Case("", cases.own_input(operation, pair.full))
    if "limit" in operation.input.model_fields:
        yield cases.Case("limit", {**cases.own_input(operation, pair.full), "limit": 1})
    if "namespace" in operation.input.model_fields and "name" not in operation.input.model_fields:
        yield cases.Case("all", {})  # a list of all that the principal may see
    yield from cases.foreign_cases(operation, pair.full, pair.foreign)


async def test_what_is_foreign_costs_what_is_nowhere_costs(pair: Pair) -> None:
    """The same statements, as many rows from each, the same words; a row that is found and refused costs SQLite's
    machine a few steps of some twenty nanoseconds: no clock tells the two apart.
    """
    tried = 0
    for operation in OPERATIONS.values():
        for label in ("operator", "admin of two", "agent"):
            for case in cases.foreign_cases(operation, pair.full, pair.foreign):
                known = pair.foreign if case.field == "filter" else pair.known  # of a change over both, events are ours
                if (twin := cases.absent_twin(case.given, known)) == case.given:
                    continue
                tried += 1
                there = await _cost(pair.full, label, operation, case.given)
                nowhere = await _cost(pair.full, label, operation, twin)
                about = f"{operation.name} as {label}: {case.given}"
                assert there[0] == nowhere[0], about
                assert abs(there[2] - nowhere[2]) <= STEPS_MAX, f"{about}: {there[2]} and {nowhere[2]} steps"
                assert _same_words(there[1], pair.known) == _same_words(nowhere[1], pair.known), about
    assert tried > 200


async def _cost(world: World, label: str, operation: Operation, given: dict[str, Any]) -> tuple[Any, Any, int]:
    """What the store did, and what was answered; the second time, when proposals are plans that are kept."""
    given = given | ({"dry_run": True} if operation.imperative else {})
    for _ in range(2):
        async with worked(world.store) as work:
            told = await _told(world, label, operation, given)
    return work.shape(), told, work.steps


async def _told(world: World, label: str, operation: Operation, given: dict[str, Any]) -> Any:
    try:
        output = await world.parts.dispatcher.call(world.principal(label), operation.name, given)
    except Refusal as refusal:
        return refusal.problem.model_dump(mode="json")
    return output.model_dump(mode="json")


def _same_words(told: Any, known: dict[str, str]) -> str:
    """An answer as its twin would give it: the marks are its own, because plans have ids of their own."""
    return Telling().of(cases.absent_twin(told, known))


async def test_answers_do_not_depend_on_what_is_foreign(pair: Pair) -> None:
    """Every operation, by every way as an operator, and by one as everybody else, who only previews what acts."""
    for operation in in_order():
        for case in questions(pair, operation):
            for way in pair.ways(operation):
                await pair.require_same(way, "operator", operation, case)
            if operation.imperative and case.field != "request_id":
                case = cases.Case(case.field, case.given | {"dry_run": True})
            for label in pair.labels[1:]:
                await pair.require_same("call", label, operation, case)
    await _same_at_rest(pair)


async def _same_at_rest(pair: Pair) -> None:
    """After all that: what is there, what happened, and how things are."""
    for name in ("agents.list", "fleets.list", "channels.list", "secrets.list", "changes.list", "system.status"):
        for label in ("operator", "operator of two"):
            await pair.require_same("call", label, OPERATIONS[name], cases.Case("all", {}))
    reading = OPERATIONS["feedback.read"]
    for types in (["change.*", "resource.*"], ["agent.*"], ["token.*", "host.*", "plane.*"]):
        await pair.require_same(
            "call", "operator", reading, cases.Case("filter", {"limit": 500, "filter": {"types": types}})
        )


async def test_mcp_resources_do_not_depend_on_what_is_foreign(pair: Pair) -> None:
    """Lists page by page, and reading of own, foreign and absent addresses."""
    addresses = ["steward://feedback", "steward://Agent/default/echo", "steward://Secret/default/inventory"]
    addresses += [f"steward://{kind}/elsewhere/hidden" for kind in ("Agent", "Channel", "Secret", "Fleet")]
    addresses += ["steward://Channel/default/hidden", "steward://Nothing/elsewhere/hidden"]
    for label in pair.labels:
        cursor: dict[str, Any] = {}
        while cursor is not None:
            page = (await pair.require_same_rpc(label, "resources/list", **cursor))["result"]
            assert not [it for it in page["resources"] if "elsewhere" in it["uri"]]
            cursor = {"cursor": page["nextCursor"]} if page.get("nextCursor") else None  # type: ignore[assignment]
        await pair.require_same_rpc(label, "resources/templates/list")
        await pair.require_same_rpc(label, "tools/list")
        for uri in addresses:
            await pair.require_same_rpc(label, "resources/read", uri, uri=uri)


async def test_metrics_are_for_who_sees_all(pair: Pair) -> None:
    """They count over all namespaces, so nobody else is shown any."""
    for label in LABELS:
        for world in (pair.full, pair.bare):
            answer = await world.client.get("/metrics", headers=world.plane.headers(label))
            assert (answer.status_code, answer.json()["reason"]) == (403, "FORBIDDEN")
    shown = await pair.full.client.get("/metrics", headers=pair.full.plane.headers("viewer of all"))
    assert shown.status_code == 200
