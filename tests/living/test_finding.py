"""Agents are found by name, label, capability and meaning, within what the caller sees. On both databases."""

from typing import Any

import pytest
from sqlmodel import select

from controlplane.knowledge.embedding import Embedder
from controlplane.mesh.traits import put_traits, traits_of
from controlplane.operations.living import finding
from controlplane.operations.planning import Write
from controlplane.operations.recording import put_resource
from controlplane.store.store import Store
from controlplane.store.tables import AgentRow, MeaningRow, TraitRow
from controlplane.store.unit import Unit
from schemas.discovery import FindInput, Found
from schemas.principal import Call, Principal
from tests.living import world
from tests.living.conftest import Living

pytestmark = pytest.mark.anyio
JUDGE = {"mandate": {"purpose": "Reads the machine's disks and diagnoses disk alarms", "grants": []}}
TRANSLATOR = {
    "mandate": {"purpose": "Works with languages", "grants": []},
    "capabilities": [
        {"name": "translate", "description": "Translates French poems", "input_schema": {"type": "object"}}
    ],
}


@pytest.fixture(scope="module")
def embed() -> Embedder:
    return Embedder()


async def put(store: Store, name: str, spec: dict[str, Any], before: dict[str, Any] | None = None, **more: Any) -> None:
    """An agent as a commit writes it."""
    namespace, labels = more.get("namespace", "default"), more.get("labels", {})
    uid = f"agent_{namespace}_{name}"
    whole = {"watches": [], **spec}
    was = None if before is None else {"watches": [], **before}
    action = "create" if before is None else "update" if spec else "delete"
    write = Write(
        action, "Agent", namespace, name, None if before is None else uid, int(before is not None),
        more.get("revision", int(before is not None)), 1, labels, whole, more.get("was_labels", {}), was,
    )  # fmt: skip
    unit = Unit()
    put_resource(unit, write, uid, world.NOW)
    assert await store.write(unit)
    if before is None:
        await world.add(
            store, AgentRow, uid=uid, namespace=namespace, name=name, generation=1, epoch=0, version=0,
            owner=more.get("owner"), stopped=more.get("stopped", 0), changed_at=world.NOW,
        )  # fmt: skip


async def find(store: Store, embed: Embedder, *namespaces: str, **given: Any) -> Found:
    handler = finding.handlers(store, embed)["discovery.find"]
    principal = Principal("ann", "viewer", namespaces or ("*",))
    answered = await handler(Call(principal, "discovery.find", world.NOW), FindInput(**given))
    assert isinstance(answered, Found)
    return answered


def found(answered: Found) -> list[str]:
    return [f"{it.namespace}/{it.name}" for it in answered.items]


async def test_meaning_finds_who_can(store: Store, embed: Embedder) -> None:
    """In words that the agent does not use; the vector is kept, and the second call reads it."""
    await put(store, "judge", JUDGE, owner="host_1")
    await put(store, "poet", TRANSLATOR)
    await put(store, "silent", {})
    answered = await find(store, embed, meaning="who can judge a disk alarm?")
    assert [(it.name, it.state, it.found_by) for it in answered.items] == [("judge", "awake", "meaning")]
    assert (answered.items[0].score or 0) > 0.6
    assert (answered.more, answered.complete) == (False, True)
    kept = await store.read(lambda session: len(session.exec(select(MeaningRow)).all()))
    assert kept == 2
    again = await find(store, embed, meaning="turn a poem in French into English")
    assert found(again) == ["default/poet"]
    assert again.items[0].state == "suspended"
    assert again.items[0].capabilities[0].input_schema == {"type": "object"}


async def test_what_is_given_must_all_be_so(store: Store, embed: Embedder) -> None:
    """By name or its beginning, labels, capability; and by meaning among those."""
    await put(store, "judge-a", JUDGE, labels={"site": "a", "tier": "1"})
    await put(store, "judge-b", JUDGE, labels={"site": "b", "tier": "1"}, stopped=1)
    await put(store, "poet", TRANSLATOR, labels={"site": "a"})
    assert found(await find(store, embed)) == ["default/judge-a", "default/judge-b", "default/poet"]
    assert found(await find(store, embed, name="judge")) == ["default/judge-a", "default/judge-b"]
    assert found(await find(store, embed, name="judge", labels={"site": "b"})) == ["default/judge-b"]
    assert found(await find(store, embed, labels={"site": "a", "tier": "1"})) == ["default/judge-a"]
    assert found(await find(store, embed, capability="translate", labels={"site": "a"})) == ["default/poet"]
    assert found(await find(store, embed, capability="translate", labels={"site": "b"})) == []
    near = await find(store, embed, meaning="disk alarms", labels={"site": "b"})
    assert [(it.name, it.state) for it in near.items] == [("judge-b", "stopped")]
    both = await find(store, embed, meaning="disk alarms", limit=1)
    assert (found(both), both.more) == (["default/judge-a"], True)
    assert found(await find(store, embed, query="translate")) == ["default/poet"]
    assert [it.found_by for it in (await find(store, embed, query="judge")).items] == ["name", "name"]


async def test_other_namespaces_are_not_looked_into(store: Store, embed: Embedder) -> None:
    """Neither by filters nor by meaning; what another one says is embedded for itself."""
    await put(store, "judge", JUDGE, namespace="theirs")
    assert found(await find(store, embed, "ours", meaning="disk alarms")) == []
    assert found(await find(store, embed, "ours", name="judge")) == []
    assert found(await find(store, embed, "ours", "theirs", meaning="disk alarms")) == ["theirs/judge"]
    await put(store, "judge", JUDGE, namespace="ours")
    assert found(await find(store, embed, "ours", meaning="disk alarms")) == ["ours/judge"]
    marks = await store.read(lambda session: [it.namespace for it in session.exec(select(MeaningRow)).all()])
    assert sorted(marks) == ["ours", "theirs"]


async def test_traits_follow_the_spec(store: Store, embed: Embedder) -> None:
    """A changed purpose is what is compared from then on; a deleted agent leaves nothing."""
    await put(store, "worker", JUDGE)
    await put(store, "worker", TRANSLATOR, JUDGE)
    assert found(await find(store, embed, meaning="disk alarms")) == []
    assert found(await find(store, embed, capability="translate")) == ["default/worker"]
    await put(store, "worker", {}, TRANSLATOR, revision=2)
    left = await store.read(lambda session: session.exec(select(TraitRow)).all())
    assert list(left) == []


async def test_a_call_embeds_so_many_and_says_when_some_are_left(
    store: Store, embed: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls after it do the others."""
    monkeypatch.setattr("controlplane.mesh.finding.EMBEDDED_MAX", 2)
    for number in range(3):
        purpose = {"mandate": {"purpose": f"Diagnoses alarms of disk {number}", "grants": []}}
        await put(store, f"judge-{number}", purpose)
    first = await find(store, embed, meaning="disk alarm")
    assert (len(first.items), first.complete) == (2, False)
    second = await find(store, embed, meaning="disk alarm")
    assert (len(second.items), second.complete) == (3, True)


async def test_on_a_living_gate(living: Living, embed: Embedder) -> None:
    """The vector is kept through the gate, the one writer."""
    await living.agent("echo", "Echo")
    unit = Unit()
    put_traits(unit, "default", "echo", frozenset(), traits_of(JUDGE))
    assert await living.store.write(unit)
    assert found(await find(living.store, embed, name="echo")) == ["default/echo"]
