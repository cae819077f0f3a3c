"""Tasks of Ray, as the gate wants them: begun once each, ended when they are named no more, told until the gate knows.

They belong to the placer's connection to Ray: Ray ends them with it, so nothing of them outlives an installation.
Ray itself retries nothing. A worker is used for one task, so that it never serves two agents.
"""

import asyncio
import contextlib
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from ray_runtime.computing import Told, work
from ray_runtime.problems import problem
from ray_runtime.selecting import selector
from schemas.base import canonical
from schemas.compute import ComputeRun
from schemas.frames import Frame, TaskBegin, TaskEnded, TaskStarted, TasksWanted
from schemas.keeping import Wanted, unfit

log = logging.getLogger("steward.placer")
WHY_CHARS_MAX = 500


class Tasks:
    """The tasks of one placer."""

    def __init__(self, ray: Any, folder: Path, send: Callable[[Frame], None]) -> None:
        self._ray = ray
        self._folder = folder
        self._send = send
        self._running: dict[str, tuple[Any, asyncio.Task[None]]] = {}
        self._started: dict[str, float] = {}  # since when it has what it needs, by the steady clock
        self._ended: dict[str, TaskEnded] = {}
        self._unwanted: set[str] = set()
        self._home = ray.get_runtime_context().get_node_id()
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier placer, with which its tasks have ended
        self._remote = ray.remote(max_calls=1, max_retries=0)(work)

    def begin(self, frame: TaskBegin) -> None:
        """Hand it to Ray, unless that was done before."""
        if frame.key in self._running or frame.key in self._ended:
            return
        folder = str(self._folder / frame.key.replace(":", "-"))
        try:
            ref = self._begun(frame, folder)
        except Exception as error:  # noqa: BLE001 - the boundary to Ray, which raises what it likes
            self._over(_refused(frame, error))
            return
        log.info("task %s of %s is begun", frame.key, frame.name)
        self._running[frame.key] = ref, asyncio.create_task(self._until_ended(frame.key, ref, folder))

    def _begun(self, frame: TaskBegin, folder: str) -> Any:
        given = ComputeRun.model_validate_json(frame.arguments)
        require_taken(given.resources)
        task = self._remote.options(**_options(given, frame))
        return task.remote(folder, frame.digest, frame.files, frame.arguments, self._home)

    def follow(self, frame: TasksWanted) -> None:
        """End what is not named, and forget what came of it."""
        for key in self._running.keys() - set(frame.keys):
            self._unwanted.add(key)
            self._cancel(key)
        for key in self._ended.keys() - set(frame.keys):
            del self._ended[key]

    def again(self) -> None:
        """A gate is new here: tell it what it may not have heard of."""
        for key in self._started:
            self._send(TaskStarted(key, self._active_s(key)))
        for frame in self._ended.values():
            self._send(frame)

    def end(self) -> list[asyncio.Task[None]]:
        """End all of them; they are over when these are."""
        for key in self._running:
            self._unwanted.add(key)
            self._cancel(key)
        return [watch for _, watch in self._running.values()]

    def _cancel(self, key: str) -> None:
        ref, _ = self._running[key]
        with contextlib.suppress(ValueError, self._ray.exceptions.RayError):
            self._ray.cancel(ref, force=True, recursive=True)

    async def _until_ended(self, key: str, ref: Any, folder: str) -> None:
        try:
            ended = TaskEnded(key, *await self._came(key, ref))
        except (self._ray.exceptions.RayError, asyncio.CancelledError) as error:
            ended = TaskEnded(key, "lost", canonical(_why(error)), active_s=self._active_s(key))
        del self._running[key]
        self._started.pop(key, None)
        shutil.rmtree(folder, ignore_errors=True)
        log.info("task %s has ended: %s", key, ended.outcome)
        if key in self._unwanted:
            self._unwanted.discard(key)
            return
        self._over(ended)

    def _over(self, ended: TaskEnded) -> None:
        self._ended[ended.key] = ended
        self._send(ended)

    async def _came(self, key: str, parts: Any) -> Told:
        """What it came to; before that it says that it has begun, since Ray may let it wait for what it needs."""
        async for part in parts:
            if (came := await part) is not None:
                return cast(Told, came)
            self._started[key] = time.monotonic()
            self._send(TaskStarted(key))
        raise asyncio.CancelledError(f"{key} ended without a word")

    def _active_s(self, key: str) -> float:
        return time.monotonic() - self._started[key] if key in self._started else 0.0


def require_taken(wanted: Wanted) -> None:
    """Raises ValueError for what Ray refuses of whoever asks; of some it would not even come to an end."""
    if (found := unfit(wanted)) is not None:
        raise ValueError(f"resources: {': '.join(found)}")


def in_words(error: Exception) -> str:
    """What Ray says, which may give the parts of its sentence."""
    said = " ".join(("".join(map(str, error.args)) or str(error)).split())
    return (said or type(error).__name__)[:WHY_CHARS_MAX]


def _refused(frame: TaskBegin, error: Exception) -> TaskEnded:
    """Values that Ray does not take are no better the next time; what else it raises says nothing of them."""
    why = in_words(error)
    if not isinstance(error, ValueError | TypeError):
        return TaskEnded(frame.key, "lost", canonical(why))
    found = problem("INVALID_VALUE", f"Ray does not take it: {why}", field="/arguments", why=why)
    return TaskEnded(frame.key, "failed", canonical(found.model_dump(mode="json")))


def _options(given: ComputeRun, frame: TaskBegin) -> dict[str, Any]:
    """What Ray keeps for it, and how it shows it."""
    needs = given.resources
    options: dict[str, Any] = {
        "name": f"compute/{frame.name} {given.function}",
        "num_cpus": needs.num_cpus,
        "num_gpus": needs.num_gpus,
        "resources": needs.custom,
    }
    if needs.memory_bytes:
        options["memory"] = needs.memory_bytes
    if where := selector(needs.labels, frame.avoid):
        options["label_selector"] = where
    return options


def _why(error: BaseException) -> str:
    """The first sentences in which Ray says why nothing came."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()] or [type(error).__name__]
    return lines[0][:WHY_CHARS_MAX]
