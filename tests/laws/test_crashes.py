"""Law 7: wherever the plane dies, before or after any of its units, the next one converges to the same state."""

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from controlplane.store.direct import DirectWriter
from controlplane.store.store import Store
from controlplane.store.unit import Statement
from schemas.problem import Refusal
from tests.conftest import SOAK
from tests.laws.acts import Story
from tests.operations.plane import Plane, agent, channel, fleet, secret

pytestmark = pytest.mark.anyio


class DeathError(Exception):
    """The process is gone."""


class DyingWriter:
    """The real writer, until its n-th unit: then the process dies right before or right after it."""

    def __init__(self, writer: DirectWriter) -> None:
        self._writer = writer
        self.left: int | None = None
        self.after = False
        self.units = 0

    async def write(self, statements: list[Statement]) -> bool:
        self.units += 1
        if self.left is None:
            return await self._writer.write(statements)
        self.left -= 1
        if self.left < 0:
            raise DeathError
        if self.left == 0 and not self.after:
            raise DeathError
        written = await self._writer.write(statements)
        if self.left == 0:
            raise DeathError
        return written


def steps(namespace: str) -> Iterator[list[dict[str, Any]]]:
    """A story with every kind: made, changed, scaled, and partly deleted."""
    watched = [{"channel": "news", "start": "beginning"}]
    yield [
        secret("key", namespace, a="1"),
        channel("news", namespace),
        agent("reader", namespace, watches=watched),
        fleet("zoo", 3, namespace),
    ]
    yield [
        secret("key", namespace, a="2"),
        channel("news", namespace, retention_s=50),
        agent("reader", namespace, labels={"a": "b"}, suspend_after_ms=9, watches=watched),
        fleet("zoo", 5, namespace, suspend_after_ms=3),
    ]
    yield [fleet("zoo", 1, namespace), agent("reader", namespace)]


async def lived(story: Story, die_at: int | None, after: bool, writer: DyingWriter) -> Any:
    """Go through the story, dying once; answers the declared and running state at its end, without ids."""
    plane = story.plane
    writer.units, writer.left, writer.after = 0, die_at, after
    for manifests in [*steps(story.namespace), None]:
        while not await part(story, manifests):
            writer.left = None  # a new process, which does not die
            plane.restart()
    await plane.settle()
    return await state(story)


async def part(story: Story, manifests: list[dict[str, Any]] | None) -> bool:
    """Apply (or delete the fleet and the channel) and settle; False when the process died."""
    try:
        plans = [story.plane.call("resources.propose", story.principal, manifests=manifests)] if manifests else []
        if manifests is None:
            for noun, name in (("fleets", "zoo"), ("channels", "news")):
                plans.append(story.plane.call(f"{noun}.delete", story.principal, namespace=story.namespace, name=name))
        for proposal in plans:
            try:
                plan = await proposal
            except Refusal:  # deleted before the death
                continue
            if not plan["steps"]:  # committed before the death
                continue
            result = await story.plane.commit(plan)
            assert result["outcome"] in ("committed", "already_committed"), result
        await story.plane.settle()
    except DeathError:
        for proposal in plans:
            proposal.close()
        return False
    return True


async def state(story: Story) -> Any:
    """What is declared and what runs in the namespace."""
    rows = story.plane.rows
    declared = await rows(
        "SELECT kind, name, labels, spec, generation, deleted_at IS NULL AS live FROM resource"
        " WHERE namespace = :namespace ORDER BY kind, name",
        namespace=story.namespace,
    )
    for row in declared:
        spec = orjson.loads(row["spec"])
        row["spec"] = spec if "values" not in spec else sorted(spec["values"])  # references differ by namespace
    agents = await rows(
        "SELECT name, generation, version FROM agent WHERE namespace = :namespace ORDER BY name",
        namespace=story.namespace,
    )
    subscribed = await rows(
        "SELECT c.name, a.name AS agent FROM subscription s JOIN channel c ON c.uid = s.channel"
        " JOIN agent a ON a.uid = s.agent WHERE a.namespace = :namespace",
        namespace=story.namespace,
    )
    channels = await rows("SELECT name FROM channel WHERE namespace = :namespace", namespace=story.namespace)
    changes = await rows("SELECT * FROM change WHERE namespace = :namespace", namespace=story.namespace)
    assert all(it["done_at"] is not None and it["superseded_by"] is None for it in changes)
    claims = await rows(
        "SELECT k.verdict FROM claim k JOIN change c ON c.change_id = k.change_id WHERE c.namespace = :namespace",
        namespace=story.namespace,
    )
    assert {it["verdict"] for it in claims} == {"held"}
    bound = await rows(
        "SELECT COUNT(*) AS many FROM secret_value WHERE namespace = :namespace", namespace=story.namespace
    )
    return declared, agents, subscribed, channels, len(changes), bound


@pytest.mark.parametrize("after", [False, True] if SOAK else [False], ids=["before", "after"][: 1 + SOAK])
async def test_law_7_any_crash_converges_to_the_same_state(
    database_url: str, writer: DirectWriter, after: bool
) -> None:
    """The process dies at each unit of a story in turn; the end is always that of the story without a death.

    On PostgreSQL at every fourth; in a soak at each.
    """
    dying = DyingWriter(writer)
    store = Store(database_url, dying)
    plane = Plane(store)
    wanted = await lived(Story(plane), None, after, dying)
    units = dying.units
    assert units > 20
    sample = range(1, units + 1) if SOAK or database_url.startswith("sqlite") else range(1 + after, units + 1, 4)
    for die_at in sample:
        plane.restart()
        assert await lived(Story(plane), die_at, after, dying) == wanted, f"died at unit {die_at}"
    await store.close()
