"""What dies comes back, and nothing that was acknowledged is lost or done twice."""

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil

from tests.end_to_end.agents import agent
from tests.end_to_end.test_living import ask, until
from tests.stack import STEWARD, Stack


def named(stack: Stack, name: str) -> dict[str, Any]:
    found = next(it for it in stack.call("system.status")["processes"] if it["name"] == name)
    assert isinstance(found, dict)
    return found


def test_everything_comes_back_after_kill_9(quick_url: str) -> None:
    """Plane in the middle of a change, gate and host under messages: all converge; Ctrl-C then leaves nothing.

    It ends plane, gate, placer, hosts and Ray, as SIGTERM does in `tests/faults`; state is kept for the next start.
    """
    stack = Stack(None if quick_url.startswith("sqlite") else quick_url, empty=True)
    try:
        stack.up()
        stack.apply(agent("counter", "Counter"))
        sent = 0
        for _ in range(20):
            stack.call("agents.send", name="counter", data=sent)
            sent += 1
        # the plane dies between a commit and its reconciliation
        plan = stack.call("resources.propose", manifests=[agent(f"late-{n}", "Echo") for n in range(5)])
        change = stack.call("plans.commit", plan_id=plan["plan_id"])["change_id"]
        stack.kill()
        stack.up()
        until(lambda: stack.call("changes.get", change_id=change)["outcome"] == "verified", 60)
        assert stack.call("plans.commit", plan_id=plan["plan_id"])["outcome"] == "already_committed"
        # the gate dies under messages
        for _ in range(20):
            stack.call("agents.send", name="counter", data=sent)
            sent += 1
        os.kill(named(stack, "gate")["pid"], signal.SIGKILL)
        until(lambda: stack.call("system.status")["ready"])
        # a host dies in the middle of turns
        for _ in range(20):
            stack.call("agents.send", name="counter", data=sent)
            sent += 1
        for host in stack.call("hosts.list")["items"]:
            if host["state"] == "serving":
                os.kill(host["pid"], signal.SIGKILL)
        until(lambda: stack.call("agents.inspect", name="counter")["state"]["seen"] == sent, 60)
        assert ask(stack, "counter", "last") == {"seen": sent + 1, "got": "last"}
        os.kill(stack.pid, signal.SIGINT)
        until(lambda: not psutil.pid_exists(stack.pid) or psutil.Process(stack.pid).status() == "zombie", 40)
        limit = time.monotonic() + 10
        while stack.leftovers() and time.monotonic() < limit:
            time.sleep(0.1)
        assert stack.leftovers() == []
        assert not Path(stack.data / "plane.json").exists()
    except AssertionError as error:
        raise AssertionError(f"{error}\n{stack.output()}") from error
    finally:
        stack.close()


def test_a_folder_belongs_to_one_plane_and_a_port_to_one_program(stack: Stack) -> None:
    """A second `up` on the folder, or on a taken port, answers a Problem and ends with 1."""
    port = stack.url.rsplit(":", 1)[1]
    locked = subprocess.run(
        [str(STEWARD), "up", "--data", str(stack.data), "--port", "0"],
        capture_output=True, text=True, timeout=30, env=stack.env(), check=False,
    )  # fmt: skip
    assert locked.returncode == 1
    assert "DATA_LOCKED" in locked.stdout + locked.stderr
    other = stack.folder / "other"
    taken = subprocess.run(
        [str(STEWARD), "up", "--data", str(other), "--port", port],
        capture_output=True, text=True, timeout=30, env=stack.env(), check=False,
    )  # fmt: skip
    assert taken.returncode == 1
    assert "PORT_TAKEN" in taken.stdout + taken.stderr
