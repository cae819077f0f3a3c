"""The command line against a real plane, its gate and its hosts: the story that the README tells."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from controlplane.resources.catalogue import OPERATIONS
from tests.cli.conftest import Ran, Steward
from tests.end_to_end.test_living import until
from tests.stack import Stack, runtime_folder

BAD: list[Any] = [{"no_such_field": 1}, [1], {"namespace": "UPPER CASE", "name": 5, "limit": 0}]


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    running = Stack(empty=True)
    try:
        yield running.up()
    finally:
        running.close()


@pytest.fixture(scope="module")
def rest(stack: Stack) -> Iterator[httpx.Client]:
    with stack.rest() as client:
        yield client


@pytest.fixture
def real(stack: Stack, steward: Steward) -> Steward:
    """Run a command on that plane's data folder."""
    return lambda *words: steward(*words, "--data", str(stack.data))


def _good(ran: Ran) -> Any:
    assert ran.code == 0, ran.out + ran.err
    return ran.json


def test_a_new_project_comes_to_life(real: Steward, tmp_path: Path) -> None:
    """init, apply, ask, get, inspect, suspend, feedback, undo: each with what the step before made."""
    assert real("init", "tally").code == 0
    change = _good(real("apply", "-f", "tally/manifest.yaml", "--yes", "-o", "json"))
    assert (change["outcome"], change["done"]) == ("verified", True)
    answer = _good(real("ask", "tally", '{"number": 2.5}', "-o", "json"))
    assert (answer["answered"], answer["reply"]) == (True, {"total": 2.5, "count": 1})
    assert _good(real("agents", "inspect", "default/tally", "-o", "json"))["state"] == {"total": 2.5, "count": 1}
    assert ["default", "tally", "Ready,"] in [line.split()[:3] for line in real("get", "agents").out.splitlines()]
    assert "tally" in real("get", "agent/tally").out
    assert real("suspend", "tally").code == 0
    again = real("apply", "-f", "tally/manifest.yaml")
    assert (again.code, "all is as wanted" in again.out) == (0, True)
    events = _good(real("feedback", "--change-id", change["change_id"], "-o", "json"))["events"]
    assert "change.committed" in [event["type"] for event in events]
    assert _good(real("undo", change["change_id"], "--yes", "-o", "json"))["outcome"] == "verified"
    gone = real("agents", "get", "tally", "-o", "json")
    assert (gone.code, gone.json["reason"]) == (1, "NOT_FOUND")


CAREFUL = """from ray_runtime import Agent, Turn


class Careful(Agent):
    async def on_message(self, turn: Turn, envelope):
        sure = await turn.ask_human(f"Really {envelope.data}?", choices=["yes", "no"])
        return f"{envelope.data}: {sure} in {envelope.conversationid}"
"""


def test_a_conversation_in_which_the_agent_asks_back(
    stack: Stack, real: Steward, script: Steward, tmp_path: Path
) -> None:
    """Through a turn that parks for the person who said the line: its question is answered by the next one."""
    spec = {"code": {"files": {"careful.py": CAREFUL}}, "entrypoint": "careful:Careful"}
    manifest = {"kind": "Agent", "metadata": {"name": "careful"}, "spec": spec}
    (tmp_path / "careful.yaml").write_text(json.dumps(manifest))
    assert _good(real("apply", "-f", "careful.yaml", "--yes", "-o", "json"))["outcome"] == "verified"
    said = b"delete\n2\nkeep\nyes\n"
    ran = script("chat", "default/careful", "--conversation", "c1", "--data", str(stack.data), stdin=said)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines() == [
        "? Really delete? [yes | no]", "delete: no in c1", "? Really keep? [yes | no]", "keep: yes in c1",
    ]  # fmt: skip


def test_following_sees_what_happens(stack: Stack, real: Steward, tmp_path: Path) -> None:
    """`feedback --follow` prints an event that is made while it follows, by SSE."""
    command = [sys.executable, "-m", "controlplane.cli.main", "feedback", "--follow", "-o", "json"]
    follower = subprocess.Popen(
        [*command, "--data", str(stack.data)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    try:
        (tmp_path / "m.yaml").write_text("kind: Channel\nmetadata: {name: followed}\n")
        plan = _good(real("propose", "-f", "m.yaml", "-o", "json"))
        made: set[str] = set()
        assert follower.stdout is not None
        assert json.loads(follower.stdout.readline())["cursor"]  # it follows: what was before is there
        assert _good(real("commit", plan["plan_id"], "-o", "json"))["outcome"] == "committed"
        for line in follower.stdout:
            made.add(json.loads(line)["subject"]["name"])
            if "followed" in made:
                break
        assert "followed" in made
    finally:
        follower.terminate()
        follower.wait()


def test_the_command_line_and_rest_answer_the_same(rest: httpx.Client, real: Steward) -> None:
    """Every operation that only reads, on its example: the same output, or the same Problem."""
    until(lambda: all(it["done"] for it in _called(rest, "changes.list", '{"limit": 500}').json()["items"]))
    for operation in OPERATIONS.values():
        if operation.effect == "read" and operation.name not in ("feedback.read", "system.status", "system.brief"):
            text = json.dumps(operation.example)
            _same(rest, real("call", operation.name, "--json", text), operation.name, text)


@pytest.mark.parametrize("bad", BAD, ids=json.dumps)
def test_the_command_line_and_rest_refuse_the_same(bad: Any, rest: httpx.Client, real: Steward) -> None:
    """Every operation, on input that can not be: the same Problem."""
    for name in [*OPERATIONS, "no.such"]:
        _same(rest, real("call", name, "--json", json.dumps(bad)), name, json.dumps(bad))


def test_a_wrong_token_is_refused_in_words(stack: Stack, steward: Steward) -> None:
    """UNAUTHENTICATED, as a Problem like any other."""
    ran = steward("call", "system.status", "--url", stack.url, "--token", "stw_wrong")
    assert (ran.code, ran.json["reason"]) == (1, "UNAUTHENTICATED")


def test_brief_top_and_mcp_config_speak_of_this_plane(stack: Stack, real: Steward) -> None:
    """What people look at first."""
    assert real("brief").code == 0
    assert "plane  ready" in real("top").out
    server = real("mcp-config").json["mcpServers"]["steward"]
    assert server["url"] == f"{stack.url}/mcp"


def test_down_ends_what_a_killed_plane_left(steward: Steward) -> None:
    """kill -9 of a plane, Ray still starting: `down` leaves no process, no socket, no temp folder."""
    killed = Stack()
    try:
        killed.up()
        killed.kill()
        assert killed.leftovers() != []
        ran = steward("down", "--data", str(killed.data))
        assert ran.code == 0
        assert "ended gate" in ran.out
        assert killed.leftovers() == []
        assert not Path(runtime_folder(killed.data)).exists()
        assert steward("down", "--data", str(killed.data)).out.startswith("nothing runs")
    finally:
        killed.close()


def _same(rest: httpx.Client, ran: Ran, name: str, text: str) -> None:
    answer = _called(rest, name, text)
    assert ran.code == int(answer.status_code != httpx.codes.OK), name
    assert _timeless(ran.json) == _timeless(answer.json()), name


def _called(rest: httpx.Client, name: str, text: str) -> httpx.Response:
    return rest.post(f"/v1/operations/{name}/call", content=text, headers={"Content-Type": "application/json"})


OF_THE_CALL = ("instance", "lease_until", "loop_lag_ms", "as_of")


def _timeless(value: Any) -> Any:
    """Without what is of the one call alone."""
    if isinstance(value, dict):
        return {key: _timeless(part) for key, part in value.items() if key not in OF_THE_CALL}
    return [_timeless(part) for part in value] if isinstance(value, list) else value
