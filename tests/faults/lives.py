"""Lives of a plane, each a process of its own that may be killed; the next one goes on from what is stored.

A life goes through a story that can be begun again at any point: whatever is done already is not planned
again. Forked from a server that has imported everything, so a life begins in milliseconds.
"""

import asyncio
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from controlplane.store.direct import DirectWriter
from controlplane.store.store import Store
from schemas import faults
from schemas.principal import Principal
from schemas.problem import Refusal
from tests.laws.acts import Story
from tests.laws.test_crashes import steps
from tests.operations.plane import Plane, agent

SPAWN = multiprocessing.get_context("forkserver")
SPAWN.set_forkserver_preload(["tests.faults.lives"])
LIFE_S_MAX = 60
LIVES_MAX = 6


def lives(url: str, armed: Path | None, namespace: str, progress: Path) -> int:
    """Live until the story is told; answers how many lives it took."""
    progress.write_text("0")
    for life in range(1, LIVES_MAX):
        process = SPAWN.Process(target=live, args=(url, armed, namespace, progress, life))
        process.start()
        process.join(LIFE_S_MAX)
        assert process.exitcode is not None, "a life did not come to its end"
        if process.exitcode == 0:
            return life
        assert process.exitcode == -9, f"a life ended with {process.exitcode}"
    raise AssertionError(f"not done after {LIVES_MAX} lives")


def live(url: str, armed: Path | None, namespace: str, progress: Path, life: int) -> None:
    faults.arm(armed)
    begun = int(progress.read_text())
    asyncio.run(_live(url, namespace, begun, life, lambda at: progress.write_text(str(at))))


async def _live(url: str, namespace: str, begun: int, life: int, done: Callable[[int], object]) -> None:
    writer = DirectWriter(url)
    store = Store(url, writer)
    plane = Plane(store)
    plane.now += 10 * life
    story = Story(plane, namespace)
    told = [*steps(namespace), None]
    for at in range(begun, len(told) + 1):
        if at < len(told):
            await _part(story, told[at])
        else:
            await _doomed(plane, f"{namespace}x")
        done(at + 1)
    await store.close()
    writer.close()


async def _part(story: Story, manifests: list[dict[str, Any]] | None) -> None:
    call, who = story.plane.call, story.principal
    if manifests is not None:
        await _commit(story.plane, who, await call("resources.propose", who, manifests=manifests))
    else:
        for noun, name in (("fleets", "zoo"), ("channels", "news")):
            try:
                plan = await call(f"{noun}.delete", who, namespace=story.namespace, name=name)
            except Refusal as refusal:
                if refusal.problem.reason != "NOT_FOUND":  # deleted in an earlier life
                    raise
            else:
                await _commit(story.plane, who, plan)
    await story.plane.settle()


async def _commit(plane: Plane, who: Principal, plan: dict[str, Any], **rest: Any) -> None:
    if plan["steps"]:
        result = await plane.commit(plan, who, **rest)
        assert result["outcome"] in ("committed", "already_committed"), result


async def _doomed(plane: Plane, namespace: str) -> None:
    """An agent whose start fails, committed with `on_miss: revert`."""
    who = Principal("op", "operator", (namespace,))
    begun = await plane.rows("SELECT 1 FROM change WHERE namespace = :namespace", namespace=namespace)
    if not begun:
        plan = await plane.call("resources.propose", who, manifests=[agent("doomed", namespace)])
        await _commit(plane, who, plan, on_miss="revert")
    await plane.settle(starts=False)
    await plane.finish_starts("failed", {"reason": "HANDLER_ERROR", "detail": "on purpose"})
    plane.now += 1_000
    await plane.settle()
