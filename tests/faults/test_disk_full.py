"""No room for files, no descriptors: writes are refused and said, reads go on, and then all goes on."""

import contextlib
import os
import resource
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.end_to_end.agents import channel
from tests.faults.test_planes_apart import gate_pid
from tests.stack import Stack


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with Stack() as running:
        yield running


def until(condition: Callable[[], Any], limit_s: float = 60) -> Any:
    limit = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < limit
        time.sleep(0.1)
    return found


def send(stack: Stack, operation: str, **raw: Any) -> Any:
    with stack.rest() as client:
        return client.post(f"/v1/operations/{operation}/call", json=raw)


def published(stack: Stack, name: str = "kept") -> list[Any]:
    return [it["data"] for it in stack.call("channels.read", name=name, limit=500)["envelopes"]]


def events(stack: Stack, kind: str) -> list[Any]:
    after, found = None, []
    while page := stack.call("feedback.read", **({"after": after} if after else {})):
        found += [it for it in page["events"] if it["type"] == kind]
        if not page["events"]:
            return found
        after = page["cursor"]
    return found


def trouble(stack: Stack) -> str:
    problems: list[str] = stack.call("system.status")["problems"]
    return next((it for it in problems if "The store can not be written" in it), "")


def test_a_full_disk(stack: Stack) -> None:
    """No file may grow: STORAGE_FULL with a wait, reads go on, the status says why; then all goes on by itself."""
    stack.apply(channel("kept"))
    acknowledged = []
    for n in range(20):
        stack.call("channels.publish", name="kept", data=n, request_id=f"before-{n}")
        acknowledged.append(n)
    pids = [gate_pid(stack.data), stack.pid]
    before = [resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in pids]
    for pid, (_, hard) in zip(pids, before, strict=True):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, hard))
    refusals = 0
    for n in range(20, 40):
        answer = send(stack, "channels.publish", name="kept", data=n, request_id=f"full-{n}")
        if answer.status_code == 200:
            acknowledged.append(n)
            continue
        refusals += 1
        problem = answer.json()
        assert (answer.status_code, problem["reason"], problem["recovery"]) == (507, "STORAGE_FULL", "wait"), problem
        assert problem["retry_after_s"] > 0
        assert problem["changed"] == "none"
    assert refusals
    assert published(stack) == acknowledged
    assert "goes on by itself" in until(lambda: trouble(stack))
    for pid, limits in zip(pids, before, strict=True):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
    until(lambda: not trouble(stack))
    (told,) = events(stack, "storage.recovered")
    assert told["data"]["reason"] == "STORAGE_FULL"
    recent = stack.call("system.status")["recent"]
    assert "The store could not be written since" in next(it["text"] for it in recent if it["type"] == told["type"])
    for n in range(20, 40):  # whoever was refused says it again; who was not gets the first answer
        stack.call("channels.publish", name="kept", data=n, request_id=f"full-{n}")
    assert sorted(published(stack)) == list(range(40))
    assert gate_pid(stack.data) == pids[0]


def test_no_descriptors_left(stack: Stack) -> None:
    """Plane and gate can open nothing: no process ends, nothing acknowledged is lost, and then all goes on."""
    stack.apply(channel("held"))
    stack.call("channels.publish", name="held", data=0)
    pids = [gate_pid(stack.data), stack.pid]
    before = [resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in pids]
    for pid, (_, hard) in zip(pids, before, strict=True):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (len(os.listdir(f"/proc/{pid}/fd")), hard))
    with stack.rest() as client, contextlib.suppress(httpx.HTTPError):  # refused, or not even heard
        client.post("/v1/operations/channels.publish/call", json={"name": "held", "data": 1}, timeout=3)
    for pid, limits in zip(pids, before, strict=True):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    until(lambda: send(stack, "channels.publish", name="held", data=2).status_code == 200)
    found = published(stack, "held")
    assert found[0] == 0
    assert found[-1] == 2
    assert gate_pid(stack.data) == pids[0]
    until(lambda: stack.call("system.status")["problems"] == [])
