"""How the cost of operations grows with the agents there are: counted statements, steps and bytes."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from controlplane.operations import system
from controlplane.operations.progress import Sweep, behind
from controlplane.store.unit import Unit
from tests.operations.plane import ADMIN, channel, fleet
from tests.scale.conftest import MANY, Sized
from tests.scale.counting import STEPS_EACH, Cost

pytestmark = pytest.mark.anyio
SLACK = 2.0  # an index is a level deeper
STEPS_AN_AGENT = 60  # what may be counted by an index costs so little
PAGE = 10

READS: list[tuple[str, dict[str, Any]]] = [
    ("agents.list", {"limit": PAGE}),
    ("agents.list", {"limit": PAGE, "namespace": "default"}),
    ("agents.list", {"limit": PAGE, "labels": {"part": "crowd"}}),
    ("agents.list", {"limit": PAGE, "labels": {"part": "single"}}),
    ("agents.list", {"limit": PAGE, "labels": {"part": "nobody"}, "namespace": "default"}),
    ("agents.get", {"name": "crowd-7"}),
    ("channels.list", {"limit": PAGE}),
    ("channels.get", {"name": "news"}),
    ("changes.list", {"limit": PAGE}),
    ("feedback.read", {"limit": PAGE}),
]


async def cost_of(it: Sized, operation: str, **arguments: Any) -> Cost:
    with it.store.counted() as cost:
        await it.plane.call(operation, **arguments)
    return cost


@pytest.mark.parametrize("read", READS, ids=[f"{name} {given}" for name, given in READS])
async def test_a_read_costs_what_it_shows(sized: list[Sized], read: tuple[str, dict[str, Any]]) -> None:
    """A read takes the same statements, and as many steps, whether few agents are there or many."""
    few, many = [await cost_of(it, read[0], **read[1]) for it in sized]
    assert (many.reads, many.writes) == (few.reads, few.writes)
    assert many.steps <= few.steps * SLACK


async def test_every_page_costs_what_the_first_costs(sized: list[Sized]) -> None:
    """A page in the middle and the last one are no dearer than the first."""
    many, marks = sized[1], [None]
    with many.store.counted() as cost:
        page = await many.plane.call("agents.list", limit=PAGE)
        first = cost.steps
    while page["next_page"]:
        with many.store.counted() as cost:
            page = await many.plane.call("agents.list", limit=PAGE, page=page["next_page"])
        marks.append(None)
        assert cost.steps <= first * SLACK
    assert len(marks) == (MANY + 1 + PAGE - 1) // PAGE


@pytest.mark.parametrize("verb", ["one more", "none", "another template", "delete"])
async def test_a_plan_of_a_fleet_costs_and_weighs_the_same(sized: list[Sized], verb: str) -> None:
    """Proposing and committing a change of a fleet takes the same statements and bytes, however large the fleet."""
    costs, sizes = [], []
    for it in sized:
        with it.store.counted() as cost:
            if verb == "delete":
                plan = await it.plane.call("fleets.delete", name="crowd")
            else:
                replicas = {"one more": it.size + 1, "none": 0}.get(verb, it.size)
                spec = {"config": {"a": 1}} if verb == "another template" else {}
                plan = await it.plane.propose(fleet("crowd", replicas, **spec))
            await it.plane.commit(plan)
        costs.append(cost)
        sizes.append(len(str(plan)))
    few, many = costs
    assert (many.reads, many.writes) == (few.reads, few.writes)
    assert many.steps <= few.steps + STEPS_AN_AGENT * MANY
    assert abs(sizes[1] - sizes[0]) < 50


async def test_a_channel_that_nobody_watches_costs_the_same(sized: list[Sized]) -> None:
    """A channel is set up, and taken away, without a look at each agent that might watch it."""
    costs = []
    for it in sized:
        with it.store.counted() as cost:
            plan = await it.plane.propose(channel("other"))
            await it.plane.commit(plan)
            await it.plane.reconciler.tick()
            await it.plane.commit(await it.plane.call("channels.delete", name="other"))
            await it.plane.reconciler.tick()
        costs.append(cost)
    few, many = costs
    assert (many.reads, many.writes) == (few.reads, few.writes)
    assert many.steps <= few.steps * SLACK


async def test_counts_are_taken_from_indexes(sized: list[Sized]) -> None:
    """What sums up all agents takes the same statements, and a few steps an agent."""
    for summary in ("fleets.get", "status"):
        costs = []
        for it in sized:
            if summary == "status":
                with it.store.counted() as cost:
                    counted = await it.store.read(lambda session: system.count(session, ADMIN))
                assert counted.agents["total"] == it.size + 1
            else:
                cost = await cost_of(it, "fleets.get", name="crowd")
            costs.append(cost)
        few, many = costs
        assert many.reads == few.reads
        assert many.steps <= few.steps + STEPS_AN_AGENT * MANY


async def test_one_more_agent_costs_one_agent(sized: list[Sized]) -> None:
    """A fleet that grows by one is brought there and verified by the same statements, however large it is."""
    costs = []
    for it in sized:
        await it.plane.commit(await it.plane.propose(fleet("crowd", it.size + 1)))
        with it.store.counted() as cost:
            await it.plane.settle()
        costs.append(cost)
    few, many = costs
    assert (many.reads, many.writes) == (few.reads, few.writes)


async def test_rest_costs_the_same(sized: list[Sized]) -> None:
    """When nothing is to be done, the loops read the same few statements, with a window of a sweep at most."""
    costs = []
    for it in sized:
        it.plane.now += 3_600
        await it.plane.settle()
        with it.store.counted() as cost:
            await it.plane.reconciler.tick()
            await it.plane.verifier.tick()
        costs.append(cost)
    few, many = costs
    assert (many.reads, many.writes) == (few.reads, few.writes)
    assert many.steps <= few.steps + 5 * STEPS_EACH


async def test_a_sweep_goes_everywhere_a_window_at_a_time(sized: list[Sized]) -> None:
    """What is not as declared is found wherever it is, and no look goes through more than its window."""
    few, many = sized
    missing = ["crowd-3", "crowd-19", "crowd-7"]
    for name in missing:
        await few.store.write(Unit().raw("DELETE FROM agent WHERE name = ?", [name], 1))
    sweep = Sweep(tuple(replace(it, many=5) for it in Sweep().windows))
    found: set[str] = set()
    looks = 0
    while not sweep.done:
        names, sweep = await few.store.read(partial(behind, sweep=sweep))
        found |= {key[2] for key, _ in names if key[0] == "Agent"}
        looks += 1
    assert found == set(missing)
    assert looks == (few.size + 1) // 5 + 1
    windows = Sweep(tuple(replace(it, many=20) for it in Sweep().windows))
    with many.store.counted() as cost:
        await many.store.read(partial(behind, sweep=windows))
    assert cost.steps <= 20 * 5 * STEPS_AN_AGENT


async def test_coming_and_going_is_linear(sized: list[Sized]) -> None:
    """Steps and statements for each agent that comes or goes do not grow with how many do."""
    each = []
    for it in sized:
        size = it.size * 2  # pieces of two hundred at most: one, and ten of them
        await it.plane.commit(await it.plane.propose(fleet("more", size)))
        coming = await _reconciled(it)
        await it.plane.settle()
        await it.plane.commit(await it.plane.call("fleets.delete", name="more"))
        going = await _reconciled(it)
        await it.plane.settle()
        assert await it.plane.rows("SELECT name FROM agent WHERE name LIKE 'more-%'") == []
        assert await it.plane.rows("SELECT name FROM label WHERE name LIKE 'more-%'") == []
        assert await it.plane.rows("SELECT name FROM resource WHERE owner LIKE 'fleet%' AND deleted_at > 0") == []
        each.append([(cost.reads / size, cost.writes / size, cost.steps / size) for cost in (coming, going)])
    for few, many in zip(*each, strict=True):
        assert all(more <= less * 1.5 for less, more in zip(few, many, strict=True)), (few, many)


async def _reconciled(it: Sized) -> Cost:
    """The reconciler alone, until it has nothing to do."""
    with it.store.counted() as cost:
        while await it.plane.reconciler.tick() < 0.1:
            it.plane.now += 0.01
    await it.plane.finish_starts()
    return cost


async def test_an_agent_is_a_few_rows(sized: list[Sized]) -> None:
    """Each agent costs at most 4 KiB of the store, and no claim, step or event of its own in the plan that made it."""
    used = [await _bytes(it) for it in sized]
    assert (used[1] - used[0]) / (sized[1].size - sized[0].size) <= 4096
    for table in ("claim", "change_target", "plan", "change"):
        counts = [(await it.plane.rows(f"SELECT COUNT(*) AS many FROM {table}"))[0]["many"] for it in sized]
        assert counts[0] == counts[1], table
    counts = [await it.plane.rows("SELECT COUNT(*) AS many FROM event WHERE kind = 'Agent'") for it in sized]
    assert counts[0] == counts[1]


async def _bytes(it: Sized) -> int:
    pages = (await it.plane.rows("PRAGMA page_count"))[0]["page_count"]
    free = (await it.plane.rows("PRAGMA freelist_count"))[0]["freelist_count"]
    return int((pages - free) * (await it.plane.rows("PRAGMA page_size"))[0]["page_size"])
