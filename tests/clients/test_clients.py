"""Tools that others wrote read our document and drive a live plane, without edits."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.stack import Stack

ROOT = Path(__file__).resolve().parents[2]
NODE = ROOT / ".venv/bin/node"
MODULES = ROOT / "tests/node/node_modules"
INSPECTOR = MODULES / "@modelcontextprotocol/inspector/clients/launcher/build/index.js"
REDOCLY = MODULES / "@redocly/cli/bin/cli.js"
PAGE = (ROOT / "docs/clients.md").read_text("utf-8")
MANIFEST: dict[str, Any] = {"kind": "Channel", "metadata": {"name": "of-clients"}, "spec": {}}
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
    expected = "steps: ['create']\nmade: verified\nanswer: hello\ngone: verified\n"
    assert (done.stdout, done.returncode) == (expected, 0), done.stderr


def test_a_generated_client_is_typed_and_drives_the_plane(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Generation warns of nothing; commit answers a model, a refusal a Problem."""
    generator = Path(sys.executable).with_name("openapi-python-client")
    path = {"PATH": f"{generator.parent}:{os.environ['PATH']}"}
    source = ("--path", document(stack, tmp_path), "--meta", "none", "--output-path", tmp_path / "steward_client")
    done = run(generator, "generate", *source, env=path, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in (done.stdout + done.stderr).lower()
    monkeypatch.syspath_prepend(str(tmp_path))
    part = importlib.import_module
    models = part("steward_client.models")
    client = part("steward_client").AuthenticatedClient(base_url=stack.url, token=stack.token, timeout=70)
    body = models.ProposeInput.from_dict({"manifests": [MANIFEST]})
    plan = part("steward_client.api.resources.resources_propose").sync(client=client, body=body)
    assert isinstance(plan, models.Plan)
    assert [step.action for step in plan.steps] == ["create"]
    committed = part("steward_client.api.plans.plans_commit").sync(plan.plan_id, client=client)
    assert isinstance(committed, models.CommitResult)
    assert committed.outcome == "committed"
    change = part("steward_client.api.changes.changes_wait").sync(committed.change_id, client=client, timeout_s=50)
    assert isinstance(change, models.Change)
    assert change.outcome == "verified"
    absent = part("steward_client.api.agents.agents_get").sync("default", "nobody", client=client)
    assert isinstance(absent, models.Problem)


def inspect(stack: Stack, folder: Path, path: str, *words: str) -> Any:
    token = ("--transport", "http", "--header", f"Authorization: Bearer {stack.token}")
    done = run(NODE, INSPECTOR, "--cli", stack.url + path, *token, *words, env={"HOME": str(folder)}, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning: tool" not in done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(("path", "tool"), [("/mcp", "propose"), ("/mcp/full", "plans_commit")])
def test_the_inspector_lists_tools(stack: Stack, tmp_path: Path, path: str, tool: str) -> None:
    """Both endpoints answer the Inspector's command line."""
    tools = inspect(stack, tmp_path, path, "--method", "tools/list")["tools"]
    assert tool in {it["name"] for it in tools}


def test_the_inspector_proposes_and_commits(stack: Stack, tmp_path: Path) -> None:
    """A plan is proposed, committed and waited for through the Inspector's command line."""

    def call(tool: str, argument: str) -> Any:
        words = ("--method", "tools/call", "--tool-name", tool, "--tool-arg", argument)
        return inspect(stack, tmp_path, "/mcp", *words)["structuredContent"]

    manifest = MANIFEST | {"metadata": {"name": "of-the-inspector"}}
    plan = call("propose", f"manifests={json.dumps([manifest])}")
    committed = call("commit", f"plan_id={plan['ref']}")
    change = call("wait", f"change_id={committed['data']['change_id']}")
    assert change["data"]["outcome"] == "verified"
