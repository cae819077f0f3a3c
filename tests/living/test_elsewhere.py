"""Members from elsewhere are here as long as their lease runs, and leave nothing behind. On both databases."""

import asyncio
from typing import Any

import pytest
from sqlmodel import select

from controlplane.knowledge.embedding import Embedder
from controlplane.operations.living import elsewhere, finding
from controlplane.store.retention import Retention
from controlplane.store.store import Store
from controlplane.store.tables import EventRow, MeaningRow, MemberRow, TraitRow
from schemas.calls import NamedAct
from schemas.discovery import FindInput, Found
from schemas.member import RegisterInput, RenewInput
from schemas.principal import Call, Principal
from schemas.problem import Refusal
from tests.living import world

pytestmark = pytest.mark.anyio
ANN, BOB = Principal("ann", "operator", ("default",)), Principal("bob", "operator", ("default",))
CHURN = 200


class Here:
    """The handlers, at a moment that a test moves."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store, self.now = store, world.NOW
        self.handlers = elsewhere.handlers(store) | finding.handlers(store, Embedder())
        monkeypatch.setattr("controlplane.mesh.others.time.time", lambda: self.now)

    async def call(self, operation: str, given: Any, principal: Principal = ANN, *, dry_run: bool = False) -> Any:
        return await self.handlers[operation](Call(principal, operation, self.now, None, dry_run), given)

    async def names(self, **given: Any) -> list[str]:
        found = await self.call("discovery.find", FindInput(**given))
        assert isinstance(found, Found)
        assert {it.state for it in found.items} <= {"elsewhere"}
        return [it.name for it in found.items]

    async def refused(self, operation: str, given: Any, principal: Principal = ANN) -> str:
        with pytest.raises(Refusal) as refused:
            await self.call(operation, given, principal)
        return refused.value.problem.reason

    async def rows(self, table: Any) -> int:
        return await self.store.read(lambda session: len(session.exec(select(table)).all()))


@pytest.fixture
def here(store: Store, monkeypatch: pytest.MonkeyPatch) -> Here:
    return Here(store, monkeypatch)


def judge(name: str = "far-judge", **more: Any) -> RegisterInput:
    given = {"purpose": "Judges alarms of disks", "capabilities": ["judge"], "labels": {"site": "a"}, **more}
    return RegisterInput.model_validate({"name": name, "lease_s": 10, **given})


async def test_a_member_is_found_until_its_lease_is_over(here: Here) -> None:
    """In every way that agents are; renewed, it stays; not renewed, it is gone at that moment, swept or not."""
    await here.call("discovery.register", judge(address="https://far.example.com/a2a"))
    for given in (
        {"meaning": "a disk alarm"},
        {"capability": "judge"},
        {"labels": {"site": "a"}},
        {"query": "far"},
        {},
    ):
        assert await here.names(**given) == ["far-judge"], given
    assert await here.names(labels={"site": "b"}) == []
    here.now += 9
    renewed = await here.call("discovery.renew", RenewInput(name="far-judge", lease_s=10))
    assert renewed.address == "https://far.example.com/a2a"
    here.now += 9
    assert await here.names() == ["far-judge"]
    here.now += 1
    assert await here.names() == await here.names(meaning="a disk alarm") == []
    assert await here.refused("discovery.renew", RenewInput(name="far-judge")) == "NOT_FOUND"
    assert await here.rows(MemberRow) == 1
    await Retention(here.store, 1e9, 1e9).sweep(here.now)
    assert await here.rows(MemberRow) == 0
    told = await here.store.read(lambda session: [it.type for it in session.exec(select(EventRow)).all()])
    assert told == ["member.registered", "member.expired"]
    await Retention(here.store, 1e9, 1e9).sweep(here.now + 7200)
    assert await here.rows(MeaningRow) == 0


async def test_who_comes_last_is_believed(here: Here) -> None:
    """All is replaced; taken away it is gone, and taken away again it still is."""
    await here.call("discovery.register", judge())
    replaced = await here.call("discovery.register", judge(purpose="Reads poems"), BOB)
    assert (replaced.purpose, replaced.registered_by) == ("Reads poems", "bob")
    would = await here.call("discovery.unregister", NamedAct(name="far-judge"), BOB, dry_run=True)
    assert would.would == ["default/far-judge would be found no more"]
    for _ in range(2):
        await here.call("discovery.unregister", NamedAct(name="far-judge"), BOB)
        assert await here.rows(MemberRow) == 0
    with pytest.raises(Refusal, match="input_schema"):
        await here.call("discovery.register", judge(capabilities=[{"name": "x", "input_schema": {"type": "no-such"}}]))


async def test_churn_leaves_nothing(here: Here) -> None:
    """Hundreds that come and go at once, some of them without a word: the rows that are left are of who is here."""

    async def life(number: int) -> None:
        await here.call("discovery.register", judge(f"m-{number}", lease_s=10 if number % 2 else 100))
        if number % 4 == 0:
            await here.call("discovery.unregister", NamedAct(name=f"m-{number}"))

    for at in range(0, CHURN, 50):
        await asyncio.gather(*(life(number) for number in range(at, at + 50)))
    here.now += 50
    stay = sorted(f"m-{number}" for number in range(CHURN) if number % 4 == 2)
    assert sorted(await here.names(limit=100)) == stay
    await Retention(here.store, 1e9, 1e9).sweep(here.now)
    assert (await here.rows(MemberRow), await here.rows(TraitRow)) == (len(stay), 0)
    here.now += 50
    await Retention(here.store, 1e9, 1e9).sweep(here.now)
    assert await here.rows(MemberRow) == 0


async def test_a_namespace_holds_so_many(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is refused; one that is there may say more of itself."""
    monkeypatch.setattr("controlplane.operations.living.elsewhere.MEMBERS_MAX", 1)
    await here.call("discovery.register", judge())
    assert await here.refused("discovery.register", judge("another")) == "QUOTA"
    await here.call("discovery.register", judge(purpose="Reads poems"))
