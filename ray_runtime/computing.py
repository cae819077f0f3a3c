"""A function of an agent's code, run: in a worker of Ray, or in a test's own process. Whatever it does, it answers.

A worker runs one function and ends, so that no code meets another's modules. It holds no connection and no key:
what it can reach is what Ray gave its process.
"""

import asyncio
import inspect
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ray_runtime.arguments import json_bytes
from ray_runtime.code import Package
from ray_runtime.node_folder import folder_of, of_this_task, private
from ray_runtime.problems import compute_error, problem
from schemas.base import canonical
from schemas.compute import RESULT_BYTES_MAX, ComputeRun
from schemas.problem import Problem, Refusal


class Came(NamedTuple):
    """What a function came to: succeeded | failed, its JSON, and what it took."""

    outcome: str
    result: bytes
    cpu_s: float = 0.0
    active_s: float = 0.0


Told = tuple[str, bytes, float, float]  # a `Came`


def work(folder: str, digest: str, files: bytes, arguments: bytes, home: str) -> Iterator[Told | None]:
    """Say that it has begun, bring the code here, call the function, and take the code away again; then what came."""
    yield None
    began, before = time.monotonic(), _cpu_s()
    folder = str(_place(Path(folder), home))
    package = Package(digest, Path(folder))
    try:
        given = ComputeRun.model_validate_json(arguments)
        package.install(files)
        came = called(package.function(given.function), given, folder)
    except Refusal as refusal:
        came = _failed(refusal.problem)
    finally:
        package.remove()
    yield came.outcome, came.result, max(0.0, _cpu_s() - before), time.monotonic() - began


def _place(folder: Path, home: str) -> Path:
    """Where its code is meanwhile: the `folder` on the placer's node, by Ray's id; on another that of its relay."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    return folder if here == home else of_this_task(private(folder_of(folder.parent, here)))


def called(function: Callable[..., Any], given: ComputeRun, root: str = "") -> Came:
    """Call it, to its end; an `async` one on a loop of its own."""
    try:
        value = function(*given.args, **given.kwargs)
        if inspect.iscoroutine(value):
            value = asyncio.run(value)
        result = json_bytes(given.function, value)
    except Refusal as refusal:
        return _failed(refusal.problem)
    except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001 - the boundary of users' code
        return _failed(compute_error(error, root, given.function))
    if len(result) > RESULT_BYTES_MAX:
        name, size, most = given.function, len(result), RESULT_BYTES_MAX
        detail = f"{name} answered {size} bytes, and {most} are the most: let it keep them elsewhere"
        found = problem("LIMIT_REACHED", detail, function=name, limit="compute_result_bytes_max", bytes=size, max=most)
        return _failed(found)
    return Came("succeeded", result)


def _failed(found: Problem) -> Came:
    return Came("failed", canonical(found.model_dump(mode="json")))


def _cpu_s() -> float:
    """Seconds of CPU of this process and of those it has waited for."""
    used = [resource.getrusage(it) for it in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(it.ru_utime + it.ru_stime for it in used)
