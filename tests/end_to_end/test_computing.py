"""Functions that Ray runs for agents, through a whole installation: nothing is lost, and nothing is left."""

import os
import threading
from pathlib import Path
from typing import Any

import psutil

from tests.end_to_end.agents import agent
from tests.end_to_end.test_living import ask, condition, until
from tests.stack import Stack

SOURCE = """
import os
import pathlib
import time

from ray_runtime import Agent, Turn


def work(folder, number):
    here = pathlib.Path(folder)
    with (here / "began").open("a") as began:
        began.write(f"{os.getpid()}\\n")
    while not (here / "go").exists():
        time.sleep(0.05)
    return {"square": number * number, "pid": os.getpid()}


class Thinker(Agent):
    async def on_message(self, turn: Turn, envelope):
        return await turn.compute("thinker:work", envelope.data, 7, resources={"num_cpus": 1}, purpose="to know")
"""


def thinker(name: str, **spec: Any) -> dict[str, Any]:
    code = {"files": {"thinker.py": SOURCE}}
    return agent(name, "Thinker", code=code, entrypoint="thinker:Thinker", suspend_after_ms=20, **spec)


def began(folder: Path) -> list[int]:
    path = folder / "began"
    return [int(it) for it in path.read_text().split()] if path.exists() else []


def test_a_function_survives_the_gate_and_begins_anew_when_its_worker_dies(stack: Stack, tmp_path: Path) -> None:
    """Its agent is suspended meanwhile; kill -9 of the gate, then of the worker: one answer, by the second worker."""
    stack.apply(thinker("thinker", grants=["compute.run"]))
    answers: list[Any] = []
    asking = threading.Thread(target=lambda: answers.append(ask(stack, "thinker", str(tmp_path))))
    asking.start()
    (first,) = until(lambda: began(tmp_path), 60)
    until(lambda: condition(stack, "thinker", "Active")["status"] == "false")
    gate = next(it for it in stack.call("system.status")["processes"] if it["name"] == "gate")
    os.kill(gate["pid"], 9)
    until(lambda: any(it["name"] == "gate" and it["pid"] != gate["pid"] for it in processes(stack)))
    assert psutil.pid_exists(first)
    os.kill(first, 9)
    _, second = until(lambda: len(began(tmp_path)) == 2 and began(tmp_path), 60)
    (tmp_path / "go").touch()
    asking.join(60)
    assert answers == [{"square": 49, "pid": second}]
    until(lambda: not psutil.pid_exists(second))
    turn = stack.call("turns.list", name="thinker")["items"][0]
    (effect,) = stack.call("turns.get", turn_id=turn["turn_id"])["journal"]
    assert (effect["kind"], effect["outcome"]) == ("effect", "succeeded")
    assert stack.call("usage.report", agent="thinker")["meters"]["task_s"] > 0


def processes(stack: Stack) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = stack.call("system.status")["processes"]
    return found
