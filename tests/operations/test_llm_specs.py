"""Agents of runtime `llm`: what their manifests need not say, what they may not, and what becomes of them."""

import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from controlplane.operations.runtimes import DIGEST, ENTRYPOINT, FILES
from controlplane.store.store import Store
from schemas.agent import AgentSpec
from schemas.problem import Refusal
from tests.operations.plane import Plane

pytestmark = pytest.mark.anyio


@pytest.fixture
async def plane(quick_store: Store) -> Plane:
    """On one database: what is stored is stored as any agent's."""
    return Plane(quick_store)


SCHEMA = jsonschema.Draft202012Validator(AgentSpec.model_json_schema())
TOOL = {"name": "t", "agent": "b"}
ROOT = Path(__file__).resolve().parents[2]
GRANT = {"effect": "llm.request", "connection": "model"}


def spec(*, grants: Any = (GRANT,), more: dict[str, Any] | None = None, **llm: Any) -> dict[str, Any]:
    model = {"connection": "model", "model": "m", **llm}
    return {"runtime": "llm", "llm": model, "mandate": {"grants": list(grants)}, **(more or {})}


def manifest(**given: Any) -> dict[str, Any]:
    return {"kind": "Agent", "metadata": {"name": "a"}, "spec": spec(**given)}


async def test_it_brings_its_own_code_and_more_time(plane: Plane) -> None:
    """The package is stored under its digest, the one of all such agents; what is answered can be applied again."""
    await plane.apply(manifest())
    (row,) = await plane.rows("SELECT digest, files FROM code")
    assert row["digest"] == DIGEST
    assert "steward_llm/agent.py" in FILES
    stored = (await plane.call("agents.get", name="a"))["spec"]
    assert (stored["code"]["digest"], stored["entrypoint"]) == (DIGEST, ENTRYPOINT)
    assert stored["limits"]["turn_s_max"] == 900
    again = await plane.call("resources.propose", manifests=[{**manifest(), "spec": stored}])
    assert again["steps"] == []


async def test_the_documented_manifests_are_taken(plane: Plane) -> None:
    """What docs/llm.md shows can be applied as it stands, and so can what the README shows."""
    for page, steps in (("docs/llm.md", 3), ("README.md", 1)):
        text = (ROOT / page).read_text(encoding="utf-8")
        (found,) = [it for it in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "runtime: llm" in it]
        plan = await plane.call("resources.propose", manifests=list(yaml.safe_load_all(found)))
        assert len(plan["steps"]) == steps, page


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"grants": []}, "NOT_GRANTED", "/mandate/grants"),
    ({"grants": [{"effect": "llm.request", "connection": "other"}]}, "NOT_GRANTED", "/mandate/grants"),
    ({"output": {"type": "array"}}, "INVALID_VALUE", "/llm/output"),
    ({"output": {"type": "object", "required": 1}}, "INVALID_VALUE", "/llm/output"),
    ({"tools": [TOOL | {"parameters": {"type": "string"}}]}, "INVALID_VALUE", "/llm/tools/0/parameters"),
    ({"tools": [TOOL] * 2}, "INVALID_VALUE", "/llm/tools"),
    ({"tools": [TOOL | {"name": "final_answer"}]}, "INVALID_VALUE", "/llm/tools"),
]


async def test_what_could_not_work_is_refused(plane: Plane) -> None:
    """What no schema can say is said when it is proposed."""
    for given, reason, field in REFUSED:
        assert SCHEMA.is_valid(spec(**given))
        with pytest.raises(Refusal) as refused:
            await plane.call("resources.propose", manifests=[manifest(**given)])
        problem = refused.value.problem
        assert (problem.reason, problem.field) == (reason, f"/manifests/0/spec{field}"), given


@pytest.mark.parametrize(
    "given",
    [
        {"runtime": "llm"},
        {"llm": {"connection": "model", "model": "m"}},
        spec(more={"config": {"a": 1}}),
        spec(more={"code": {"files": {"a.py": ""}}}),
        spec(more={"runtime": "python"}),
        spec(tools=[{"name": "t"}]),
        spec(tools=[{"name": "t", "agent": "b", "effect": "machine.read"}]),
        spec(tools=[{"name": "t", "agent": "b", "connection": "c"}]),
        spec(tools=[{"name": "t", "agent": "b", "fixed": {"a": 1}}]),
        spec(tools=[{"name": "t", "effect": "machine.*"}]),
        spec(tools=[{"name": "t", "person": False}]),
        spec(tools=[{"name": "t", "person": True, "agent": "b"}]),
        spec(tools=[{"name": "t", "person": True, "parameters": {"type": "object"}}]),
    ],
)
def test_what_the_schema_refuses_is_refused(given: dict[str, Any]) -> None:
    """The model and its schema say the same."""
    assert not SCHEMA.is_valid(given)
    with pytest.raises(ValueError, match="validation error"):
        AgentSpec.model_validate(given)


def test_both_runtimes_are_valid() -> None:
    """A model without code, and code without a model."""
    tools = [TOOL, {"name": "u", "effect": "machine.read", "fixed": {"what": "cpu"}}, {"name": "v", "person": True}]
    for given in (spec(), spec(tools=tools)):
        assert SCHEMA.is_valid(given)
        AgentSpec.model_validate(given)
    python = {"code": {"files": {"a.py": "class A: ..."}}, "entrypoint": "a:A"}
    assert SCHEMA.is_valid(python)
    assert not SCHEMA.is_valid({"entrypoint": "a:A"})
