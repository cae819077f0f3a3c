"""Starting fast, starting projects, ending planes, and the live view."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from controlplane import VERSION
from controlplane.cli.live import run_live
from controlplane.cli.main import VERBS
from controlplane.resources.problems import problem
from controlplane.settings import Settings
from controlplane.supervision.folder import Lock
from controlplane.supervision.processes import Record, known
from schemas.agent import AgentManifest
from tests.cli import answers
from tests.cli.conftest import Steward
from tests.cli.standin import StandIn

ROOT = Path(__file__).parents[2]
HEAVY = {
    "fastapi",
    "starlette",
    "sqlalchemy",
    "sqlmodel",
    "ray",
    "mcp",
    "uvicorn",
    "cryptography",
    "psycopg",
    "alembic",
}


def test_the_version_is_the_packages(script: Steward) -> None:
    """`steward --version`, and what pyproject.toml says."""
    ran = script("--version")
    assert (ran.code, ran.out) == (0, f"steward {VERSION}\n")
    assert f'version = "{VERSION}"' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("place", ["/dev/null/x", "file", "x" * 300])
def test_a_project_that_can_not_be_written_is_a_problem(place: str, steward: Steward) -> None:
    """Below or in place of a file, or by a name that is too long."""
    Path("file").write_text("")
    ran = steward("init", place, "--output", "json")
    assert (ran.code, ran.json["reason"], ran.json["metadata"]["path"]) == (1, "INVALID_VALUE", place)


def test_an_empty_address_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a variable that is set to nothing says it, too."""
    assert Settings(ray_address="", database_url=" ").ray_address is None
    monkeypatch.setenv("STEWARD_RAY_ADDRESS", "")
    monkeypatch.setenv("STEWARD_DATABASE_URL", "")
    found = Settings()
    assert (found.ray_address, found.database_url) == (None, None)


def test_no_command_imports_the_plane() -> None:
    """Every module of the command line, and none of what serves, stores or runs agents."""
    modules = [f"controlplane.cli.{module}" for module in {*VERBS.values(), "main", "reference", "generated"}]
    code = f"import sys\nfor m in {modules!r}: __import__(m)\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded & HEAVY == set()
    assert "controlplane.wiring" not in done.stdout.split()


def test_every_verb_is_there(steward: Steward) -> None:
    """`steward VERB --help` for each, and `steward --help` names them all."""
    listed = steward("--help").out
    for verb in VERBS:
        assert steward(verb, "--help").code == 0
        assert verb in listed


def test_a_new_project_passes_its_own_test(script: Steward, tmp_path: Path) -> None:
    """The generated agent, run by the engine that hosts run, and a manifest that the plane takes."""
    assert script("init", "My_First Agent").code == 0
    folder = tmp_path / "My_First Agent"
    manifest = yaml.safe_load((folder / "manifest.yaml").read_text())
    assert manifest["metadata"]["name"] == "my-first-agent"
    manifest["spec"]["code"] = {"files": {"agent.py": (folder / "agent.py").read_text()}}
    AgentManifest.model_validate(manifest)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_init_overwrites_nothing(steward: Steward, tmp_path: Path) -> None:
    """A file that is there stays; nothing else is written."""
    (tmp_path / "agent.py").write_text("mine")
    ran = steward("init", ".", "-o", "json")
    assert (ran.code, ran.json["metadata"]["path"]) == (1, "agent.py")
    assert [path.name for path in tmp_path.iterdir()] == ["agent.py"]


def test_mcp_config_names_the_endpoint_and_hides_the_token(steward: Steward, tmp_path: Path) -> None:
    """A reference to the variable, or the token itself when asked for."""
    (tmp_path / "plane.json").write_text(json.dumps({"url": "http://127.0.0.1:7700", "pid": 1}))
    (tmp_path / "admin.token").write_text("stw_secret")
    ran = steward("mcp-config", "--data", str(tmp_path))
    server = ran.json["mcpServers"]["steward"]
    assert server["url"] == "http://127.0.0.1:7700/mcp"
    assert server["headers"] == {"Authorization": "Bearer ${STEWARD_TOKEN}"}
    assert "stw_secret" not in ran.out + ran.err
    shown = steward("mcp-config", "--show-token", "--full", "--data", str(tmp_path)).json["mcpServers"]["steward"]
    assert shown == {**server, "url": f"{server['url']}/full", "headers": {"Authorization": "Bearer stw_secret"}}


HOLDER = """
import signal, sys, time
from pathlib import Path
from controlplane.supervision.folder import Lock
lock = Lock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
time.sleep(60)
"""


def test_down_ends_the_holder_of_the_folder_and_its_children(steward: Steward, tmp_path: Path) -> None:
    """The process that holds the lock, then what is recorded; never a process whose start time is another."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    plane = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT)
    try:
        assert plane.stdout is not None
        plane.stdout.readline()
        Record(tmp_path).put(known("gate", child.pid))
        rows = json.loads((tmp_path / "processes.json").read_text())
        reused = {**rows[0], "name": "host", "pid": stranger.pid, "started": 1.0}
        (tmp_path / "processes.json").write_text(json.dumps([*rows, reused]))
        ran = steward("down", "--data", str(tmp_path))
        assert ran.code == 0
        assert ran.out.splitlines() == [f"ended the plane (pid {plane.pid})", f"ended gate (pid {child.pid})"]
        assert plane.wait(5) == 0
        assert child.poll() is not None
        assert stranger.poll() is None
        assert steward("down", "--data", str(tmp_path)).out == f"nothing runs on {tmp_path}\n"
    finally:
        for process in (plane, child, stranger):
            process.kill()
            process.wait()


def test_down_makes_no_folder(steward: Steward, tmp_path: Path) -> None:
    """Where there is no data folder, nothing runs, and nothing is made."""
    ran = steward("down", "--data", str(tmp_path / "none"))
    assert (ran.code, (tmp_path / "none").exists()) == (0, False)


def test_down_leaves_the_folder_free(steward: Steward, tmp_path: Path) -> None:
    """The lock that was looked at can be taken again."""
    lock = Lock(tmp_path)
    lock.acquire()
    lock.release()
    assert steward("down", "--data", str(tmp_path)).code == 0
    Lock(tmp_path).acquire()


def test_a_bad_setting_is_a_problem_that_names_it(steward: Steward, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a flag or from the environment."""
    ran = steward("up", "--port", "99999", "-o", "json")
    assert (ran.code, ran.json["reason"], ran.json["metadata"]["setting"]) == (1, "INVALID_VALUE", "port")
    monkeypatch.setenv("STEWARD_LEASE_S", "soon")
    assert steward("up", "-o", "json").json["metadata"]["setting"] == "lease_s"


def test_the_live_view_says_each_thing_once(plane: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal: a line for each change, each event, each report, until it is stopped."""
    events, reports = [[answers.event("1")], []], [[_report("1", "disk \x1b[2J is full")], []]
    plane.answers.update(
        {
            "system.status": answers.status(),
            "agents.list": {"items": [answers.agent()], "next_page": None},
            "changes.list": {"items": [], "next_page": None},
            "feedback.read": lambda _: {"events": events.pop(0) if events else [], "cursor": "1"},
            "channels.read": lambda _: {"envelopes": reports.pop(0) if reports else [], "cursor": "1"},
        }
    )
    stop = threading.Event()
    thread = threading.Thread(target=run_live, args=(plane.url, "t", stop), kwargs={"every_s": 0.02})
    thread.start()
    deadline = time.monotonic() + 10
    while len(plane.inputs("channels.read")) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    stop.set()
    thread.join(5)
    out = capsys.readouterr().out
    assert out.count("resource.created") == 1
    assert out.count("disk \\u001b[2J is full") == 1
    assert out.count("agent default/echo  Ready") == 1
    assert "/mcp" in out.splitlines()[0]
    assert plane.inputs("feedback.read")[1]["after"] == "1"


def test_the_live_view_outlives_a_plane_that_is_away(plane: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    """It says so, and looks again."""
    looks: list[int] = []

    def status(_: object) -> object:
        looks.append(1)
        return problem("NOT_READY", "the gate starts") if len(looks) < 3 else answers.status()

    empty = {"items": [], "next_page": None}
    plane.answers.update({"system.status": status, "agents.list": empty, "changes.list": empty})
    plane.answers.update({"feedback.read": {"events": [], "cursor": "0"}, "channels.read": problem("NOT_FOUND", "-")})
    stop = threading.Event()
    thread = threading.Thread(target=run_live, args=(plane.url, "t", stop), kwargs={"every_s": 0.02})
    thread.start()
    deadline = time.monotonic() + 10
    while not plane.inputs("channels.read") and time.monotonic() < deadline:
        time.sleep(0.01)
    stop.set()
    thread.join(5)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == ["plane  the gate starts", "plane  ready, gate up, Ray up, 1 hosts"]


def _report(position: str, text: str) -> dict[str, object]:
    return {"time": answers.AT, "source": "/default/agents/diagnoser", "position": position, "data": {"text": text}}
