"""The recipe works as it stands: its package, installed by its entry point, performs effects in a real gate."""

import asyncio
import contextlib
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import yaml

from controlplane.protocols.registry import load
from controlplane.store.store import Store
from schemas.connection import connection_spec
from schemas.problem import Refusal
from schemas.protocols import GROUP
from tests import zygote
from tests.gate import far
from tests.gate.running import RunningGate, running
from tests.gate.zoo import SOURCE
from tests.operations.plane import Plane
from tests.protocols.conftest import Install

pytestmark = pytest.mark.anyio
PAGE = (Path(__file__).resolve().parents[2] / "docs/recipes/add-a-protocol.md").read_text()


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


@pytest.fixture
def installed(stranger: Install) -> Path:
    """As pip would leave it, by the recipe's own words."""
    name, value = re.findall(r'^(\w+) = "(.*)"$', block("toml"), re.MULTILINE)[0]
    return stranger("finger", block("python"), **{name: value})


@contextlib.asynccontextmanager
async def host(answers: dict[str, str]) -> AsyncIterator[tuple[int, list[str]]]:
    """A finger daemon of the tests."""
    asked: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readline()).decode().strip())
        writer.write(answers.get(asked[-1], "nobody").encode())
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], asked


def of_its_own(folder: Path) -> Any:
    """Starts gates as processes that have the package in their path: the zygote began before it was there."""
    forked = zygote.start

    def start(what: str, *arguments: str) -> Any:
        if what != "gate":
            return forked(what, *arguments)
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        return subprocess.Popen([sys.executable, "-m", "tests.gate.process", *arguments], env=environment)

    return start


async def put(gate: RunningGate, name: str, endpoint: str, **options: Any) -> None:
    from controlplane.store.unit import Unit

    spec = connection_spec({"protocol": "finger", "endpoint": endpoint, "options": options})
    await far.put(gate, Unit(), "Connection", name, spec.model_dump(mode="json"))


async def test_its_effects_are_performed_by_a_gate(
    quick_url: str, installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Granted, judged, journaled, bounded, and kept from inner addresses, as any."""
    monkeypatch.setattr(zygote, "start", of_its_own(installed))
    async with host({"jones": "at home"}) as (port, asked), running(quick_url) as gate:
        grants = [{"effect": "finger.*", "connection": it} for it in ("open", "shut", "gone")]
        await gate.agent("asker", await gate.code(SOURCE), "Noter", mandate={"grants": grants})
        await put(gate, "open", f"finger://127.0.0.1:{port}", allow_private=True)
        await put(gate, "shut", f"finger://127.0.0.1:{port}")
        await put(gate, "gone", "finger://127.0.0.1:1", allow_private=True)
        query = {"effect": "finger.query", "connection": "open", "user": "jones"}
        assert await gate.ask("asker", query, "m1") == {"text": "at home", "truncated": False}
        assert await gate.ask("asker", {**query, "connection": "shut"}, "m2") == "FORBIDDEN_ADDRESS"
        assert await gate.ask("asker", {**query, "connection": "gone"}, "m3") == "EFFECT_FAILED"
        assert await gate.ask("asker", {**query, "user": "a b"}, "m4") == "INVALID_VALUE"
        assert await gate.ask("asker", {**query, "effect": "finger.drink"}, "m5") == "UNKNOWN_EFFECT"
        assert asked == ["jones"]


async def test_its_connections_are_checked_when_proposed(quick_store: Store, installed: Path) -> None:
    """By the schema and the check that the package brings; the recipe's own manifest is taken."""
    plane = Plane(quick_store, protocols=load(entry_points(group=GROUP)).declared)
    (manifest,) = yaml.safe_load_all(block("yaml"))
    assert len((await plane.propose(manifest))["steps"]) == 1
    for change, field in (({"endpoint": "http://far"}, "/endpoint"), ({"options": {"depth": 1}}, "/options")):
        with pytest.raises(Refusal) as refused:
            await plane.propose({**manifest, "spec": {**manifest["spec"], **change}})
        assert refused.value.problem.field == f"/manifests/0/spec{field}"
