"""The recipe works as it stands: its package, installed by its entry point, performs effects in a real gate."""

import asyncio
import contextlib
import hmac
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import yaml

from controlplane.feedback.doorbell import LocalDoorbell
from controlplane.protocols.registry import load
from controlplane.store.store import Store
from schemas.connection import connection_spec
from schemas.problem import Refusal
from schemas.protocols import GROUP
from tests import zygote
from tests.api.parts import Parts
from tests.api.plane import Plane as Surface
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


async def put(
    gate: RunningGate, name: str, endpoint: str, secret: dict[str, str] | None = None, **options: Any
) -> None:
    from controlplane.store.unit import Unit

    spec = connection_spec({"protocol": "finger", "endpoint": endpoint, "secret": secret, "options": options})
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


def told(body: bytes, unique: str = "17", key: str = far.SECRET) -> dict[str, str]:
    signature = hmac.new(key.encode(), unique.encode() + b"\n" + body, "sha256").hexdigest()
    return {"finger-id": unique, "finger-signature": signature}


async def test_what_is_posted_in_its_own_form_becomes_an_envelope(
    quick_url: str, installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over /hooks, signed by the connection's secret, once for an id; no other signature is told anything."""
    monkeypatch.setattr(zygote, "start", of_its_own(installed))
    body = b"jones\r\nat home\r\nuntil six"
    async with running(quick_url) as gate:
        await far.secret(gate, "campus")
        named = {"name": "campus", "key": "token"}
        await put(gate, "campus", "finger://127.0.0.1:1", named, channel="whois")
        await put(gate, "deaf", "finger://127.0.0.1:1", named)
        await put(gate, "bare", "finger://127.0.0.1:1", channel="whois")
        app = Surface(Parts(gate.store, gate.client, LocalDoorbell())).app()
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=20) as client:

            async def post(name: str, said: bytes, headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
                answered = await client.post(f"/hooks/default/{name}", content=said, headers=headers)
                return answered.status_code, answered.json()

            first, again = [await post("campus", body, told(body)) for _ in range(2)]
            assert (first[0], again[0], first[1]["duplicate"], again[1]["duplicate"]) == (200, 200, False, True)
            refused = [
                await post("campus", b"smith\r\naway", told(body)),
                await post("campus", body, told(body, key="another")),
                await post("campus", body, told(body) | {"finger-id": "18"}),
                await post("campus", body, {}),
                await post("deaf", body, told(body)),
                await post("bare", body, told(body)),
                await post("bare", body, told(body, key="")),
            ]
            assert {(status, it["reason"]) for status, it in refused} == {(401, "UNAUTHENTICATED")}
            bad = await post("campus", b"no such user\r\n", told(b"no such user\r\n", "19"))
            assert (bad[0], bad[1]["reason"]) == (422, "INVALID_VALUE")
        ((found,),) = await gate.rows("SELECT m.body FROM channel_message m JOIN channel c ON c.uid = m.channel")
    envelope = orjson.loads(found)
    assert {it: envelope.get(it) for it in ("source", "subject", "type", "data", "partitionkey", "taint")} == {
        "source": "/default/connections/campus", "subject": "default/whois", "type": "finger.told",
        "data": {"user": "jones", "text": "at home\r\nuntil six"}, "partitionkey": "jones", "taint": "untrusted",
    }  # fmt: skip
    assert envelope["id"] == first[1]["message_id"]


async def test_its_connections_are_checked_when_proposed(quick_store: Store, installed: Path) -> None:
    """By the schema and the check that the package brings; the recipe's own manifest is taken."""
    plane = Plane(quick_store, protocols=load(entry_points(group=GROUP)).declared)
    (manifest,) = yaml.safe_load_all(block("yaml"))
    assert len((await plane.propose(manifest))["steps"]) == 1
    for change, field in (({"endpoint": "http://far"}, "/endpoint"), ({"options": {"depth": 1}}, "/options")):
        with pytest.raises(Refusal) as refused:
            await plane.propose({**manifest, "spec": {**manifest["spec"], **change}})
        assert refused.value.problem.field == f"/manifests/0/spec{field}"
