"""A whole installation whose placer, Ray, gate and plane die: what was acknowledged is done, once."""

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any

import psutil

from schemas.faults import POINTS
from tests.conftest import SOAK
from tests.end_to_end.agents import agent as manifest
from tests.end_to_end.test_deaths import named
from tests.end_to_end.test_living import ask, until
from tests.faults.points import Arming
from tests.stack import Stack

OF_PLACER = [point for point in POINTS if point.startswith("placer.")]
FIRES = frozenset(OF_PLACER)


@contextlib.contextmanager
def installation(arming: Arming) -> Iterator[Stack]:
    stack = Stack(None, faults=arming.folder, lease_s=5)
    try:
        stack.up()
        stack.apply(manifest("counter", "Counter"))
        yield stack
    except AssertionError as error:
        raise AssertionError(f"{error}\n{stack.output()}") from error
    finally:
        stack.close()


def fresh(name: str) -> dict[str, Any]:
    """An agent whose code nobody else has, so that it needs a host of its own."""
    found = manifest(name, "Echo")
    files = {path: f"{text}\n# {name}\n" for path, text in found["spec"]["code"]["files"].items()}
    return {**found, "spec": {**found["spec"], "code": {"files": files}}}


def events(stack: Stack, kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = stack.call("feedback.read", limit=500, filter={"types": [kind]})["events"]
    return found


def count(stack: Stack, begun: int, many: int) -> int:
    """Send some, without waiting for answers; answers how many were sent in all."""
    for n in range(begun, begun + many):
        stack.call("agents.send", name="counter", data=n)
    return begun + many


def counted(stack: Stack, sent: int) -> None:
    until(lambda: stack.call("agents.inspect", name="counter")["state"]["seen"] == sent, 90)


def ended(stack: Stack, part: str, head: int | None = None) -> int:
    """kill -9 of one of the processes that Ray is made of; answers the pid of their head."""
    head = head or named(stack, "ray")["pid"]
    os.kill(next(it.pid for it in psutil.Process(head).children(recursive=True) if it.name() == part), signal.SIGKILL)
    return head


def back(stack: Stack, before: int) -> bool:
    """Whether there is another head than before, and it serves."""
    return bool(stack.call("system.status")["ray"] == "up" and named(stack, "ray")["pid"] != before)


def left(arming: Arming) -> bool:
    return bool(arming.left())


def test_the_placer_dies_at_each_of_its_points(arming: Arming) -> None:
    """The hosts that are wanted come all the same; and an installation that is armed says so."""
    with installation(arming) as stack:
        assert any("Fault points are armed" in it for it in stack.call("system.status")["problems"])
        assert "fault points are armed" in stack.output()
        for n, point in enumerate(OF_PLACER):
            arming.arm(point)
            for again in range(6):  # some find a warm host, or die while no placer is there to see it
                if point == "placer.gone":
                    host = next(it for it in stack.call("hosts.list")["items"] if it["state"] == "serving")
                    os.kill(host["pid"], signal.SIGKILL)
                name = f"echo-{n}-{again}"
                stack.apply(fresh(name), timeout_s=90)
                assert ask(stack, name, n) == n
                if not left(arming):
                    break
            until(lambda: not left(arming), 20)
        counted(stack, count(stack, 0, 5))
        until(lambda: len(events(stack, "placer.started")) > len(OF_PLACER), 30)


def _while_a_host_is_made(stack: Stack) -> None:
    plan = stack.call("resources.propose", manifests=[fresh("late")])
    change = stack.call("plans.commit", plan_id=plan["plan_id"])["change_id"]
    head = ended(stack, "raylet")
    until(lambda: stack.call("changes.get", change_id=change)["done"], 90)
    assert ask(stack, "late", 1) == 1
    until(lambda: back(stack, head), 90)


def test_parts_of_ray_are_killed(arming: Arming) -> None:
    """GCS and raylet die while a host is made, while turns run, and while a plane starts: hosts come again.

    The last of them in every run; how a GCS dies within a change is in `test_crash_changes.py`.
    """
    with installation(arming) as stack:
        sent = count(stack, 0, 20)
        for part in ("gcs_server", "raylet") if SOAK else ():
            head = ended(stack, part)
            sent = count(stack, sent, 20)
            counted(stack, sent)
            until(lambda head=head: back(stack, head), 90)  # type: ignore[misc]
        if SOAK:
            _while_a_host_is_made(stack)
        stack.kill()
        head = ended(stack, "gcs_server", head=named_pid(stack, "ray"))
        stack.up()
        until(lambda: back(stack, head), 90)
        sent = count(stack, sent, 5)
        counted(stack, sent)
        until(lambda: len(events(stack, "ray.started")) > 1 + SOAK, 60)


def test_plane_and_gate_die_together(arming: Arming) -> None:
    """A plane killed after its commit, while the gate is down: both come back, and the change is carried out.

    As long as the gate is away the status says so, and afterwards what befell.
    """
    with installation(arming) as stack:
        sent = count(stack, 0, 10)
        plan = stack.call("resources.propose", manifests=[manifest(f"both-{n}", "Echo") for n in range(3)])
        arming.arm("plane.committed", act="delay", seconds=1.0)
        with stack.rest() as client, contextlib.suppress(Exception):
            client.post("/v1/operations/plans.commit/call", json={"plan_id": plan["plan_id"]}, timeout=0.5)
        until(lambda: not left(arming), 20)
        os.kill(named_pid(stack, "gate"), signal.SIGKILL)
        stack.kill()
        stack.up()
        assert stack.call("plans.commit", plan_id=plan["plan_id"])["outcome"] == "already_committed"
        for n in range(3):
            assert ask(stack, f"both-{n}", n) == n
        counted(stack, sent)
        assert len(events(stack, "gate.started")) >= 2
        assert lately(stack).count("plane.started") == 2
        assert lately(stack).count("gate.started") >= 2
        _the_gate_is_away(stack, arming)


def _the_gate_is_away(stack: Stack, arming: Arming) -> None:
    """Its next start stands still, so that it stays away for as long as anybody looks."""
    arming.arm("gate.start.migrated", act="stand", seconds=60)
    os.kill(named_pid(stack, "gate"), signal.SIGKILL)
    until(lambda: not left(arming))
    status = stack.call("system.status")
    assert (status["ready"], status["gate"]) == (False, "away")
    assert any("The gate is away and is being started again" in it for it in status["problems"])
    arming.go()
    until(lambda: stack.call("system.status")["gate"] == "up")
    assert not any("away" in it for it in stack.call("system.status")["problems"])


def lately(stack: Stack) -> list[str]:
    """What befell the installation, newest first, as its status says."""
    return [it["type"] for it in stack.call("system.status")["recent"]]


def named_pid(stack: Stack, name: str) -> int:
    """From the record on disk: the plane may not answer."""
    from controlplane.supervision.processes import Record

    found = Record(stack.data).find(name)
    assert found is not None
    return found.pid
