"""kill -9 of the gate, a host and Ray's GCS at every step of a change: whoever carries it out stands there meanwhile.

Each victim at each step in a soak; otherwise one at every other step, which the seed chooses.
"""

import contextlib
import logging
import os
import signal
import threading
import time
from typing import Any

import psutil

from schemas.faults import POINTS
from tests.conftest import SOAK
from tests.end_to_end.test_living import ask, until
from tests.faults.points import SEED, Arming, gone
from tests.faults.test_crash_stack import count, counted, events, fresh, installation, lately, named_pid
from tests.stack import Stack

log = logging.getLogger("steward.tests")
VICTIMS = ("gcs", "host", "gate", "host", "gate", "host", "gate", "host")  # a GCS takes its time to come back
TOLD = {"gcs": "ray.started", "host": "host.lost", "gate": "gate.started"}
STEPS = [point for point in POINTS if point.startswith(("placer.", "plane.reconcile."))]
STAND_S_MAX = 30.0


def _cases() -> list[tuple[str, str]]:
    if SOAK:
        return [(point, victim) for point in STEPS for victim in TOLD]
    found = [(point, VICTIMS[(n + SEED) % len(VICTIMS)]) for n, point in enumerate(STEPS)]
    gcs = next(it for it in found if it[1] == "gcs")
    return sorted({gcs, *found[SEED % 2 :: 2]}, key=found.index)


def _serving(stack: Stack) -> int:
    """The host whose agents keep a state."""
    home = stack.call("agents.inspect", name="counter")["host"]
    found = stack.call("hosts.list")["items"]
    return next(it["pid"] for it in found if it["host_id"] == home or (home is None and it["state"] == "serving"))


def _gcs(stack: Stack) -> int:
    parts = psutil.Process(named_pid(stack, "ray")).children(recursive=True)
    return next(it.pid for it in parts if it.name() == "gcs_server")


def _standing(stack: Stack, arming: Arming, point: str, plan: str) -> threading.Thread:
    """Commit, and come back when a process stands at the point; the plane may be that process."""
    commit = threading.Thread(target=stack.call, args=("plans.commit",), kwargs={"plan_id": plan})
    commit.start()
    if point.startswith("placer."):  # the plane does not stand, and who dies shall not take the answer along
        commit.join(60)
    until(lambda: not arming.left() or (point.startswith("placer.") and _end_warm(stack)), 60)
    return commit


def _end_warm(stack: Stack) -> None:
    """Hosts kept ahead of need end, so that the placer has something to do."""
    for host in stack.call("hosts.list")["items"]:
        if host["state"] == "warm":
            with contextlib.suppress(ProcessLookupError):
                os.kill(host["pid"], signal.SIGKILL)


def _goes_wrong(stack: Stack, arming: Arming, n: int, point: str, victim: str) -> None:
    name = f"made-{n}"
    plan: dict[str, Any] = stack.call("resources.propose", manifests=[fresh(name)])
    before = len(events(stack, TOLD[victim]))
    pid = {"gcs": _gcs, "host": _serving, "gate": lambda it: named_pid(it, "gate")}[victim](stack)
    arming.arm(point, act="stand", seconds=STAND_S_MAX)
    commit = _standing(stack, arming, point, plan["plan_id"])
    os.kill(pid, signal.SIGKILL)
    until(lambda: gone(pid))
    arming.go()
    if victim == "gcs":
        until(lambda: any("Ray is starting again" in it for it in stack.call("system.status")["problems"]))
    commit.join(60)
    again = stack.call("plans.commit", plan_id=plan["plan_id"])
    assert again["outcome"] == "already_committed"
    change = until(lambda: _done(stack, again["change_id"]), 120)
    assert change["outcome"] == "verified", change
    assert ask(stack, name, n) == n
    until(lambda: len(events(stack, TOLD[victim])) > before, 60)
    assert TOLD[victim] in lately(stack)


def _done(stack: Stack, change_id: str) -> dict[str, Any] | None:
    change: dict[str, Any] = stack.call("changes.wait", change_id=change_id, timeout_s=10)
    return change if change["done"] else None


def test_whatever_dies_at_a_step_of_a_change_it_comes_true(arming: Arming) -> None:
    """Gate, host and GCS die while placer or plane stand at a step: the change is verified, no agent loses anything."""
    with installation(arming) as stack:
        sent = count(stack, 0, 1)
        counted(stack, sent)
        for n, (point, victim) in enumerate(_cases()):
            begun = time.monotonic()
            sent = count(stack, sent, 3)
            try:
                _goes_wrong(stack, arming, n, point, victim)
                counted(stack, sent)
            except AssertionError as error:
                raise AssertionError(f"{victim} died at {point}: {error}") from error
            log.info("%s %s: %.1f s", point, victim, time.monotonic() - begun)
        status = until(lambda: _settled(stack), 60)
        assert status["open_changes"] == status["dead_letters"] == 0
        stack.stop()
        assert stack.leftovers() == []


def _settled(stack: Stack) -> dict[str, Any] | None:
    """The status, when it has no complaint but that faults are armed."""
    status: dict[str, Any] = stack.call("system.status")
    return status if len(status["problems"]) == 1 else None
