"""Reading the feedback log: order, filters, visibility, waiting; on both databases."""

import time

import anyio
import pytest

from controlplane.feedback import tail
from controlplane.feedback.cursors import Cursors
from controlplane.feedback.doorbell import LocalDoorbell
from controlplane.feedback.log import FeedbackLog
from controlplane.store.store import Store
from controlplane.store.unit import Unit
from schemas.feedback import EventFilter, EventsFound
from schemas.principal import Call, Principal
from schemas.problem import Refusal
from schemas.records import FeedbackInput

pytestmark = pytest.mark.anyio

ADMIN = Principal("admin", "admin", ("*",))
ONE = Principal("one", "viewer", ("one",))
TWO = Principal("two", "viewer", ("one", "two"))
CURSORS = Cursors(b"a key of the tests")


async def happen(store: Store, *events: tuple[str, str], kind: str = "Agent", name: str = "a") -> None:
    """Events of (type, namespace)."""
    unit = Unit()
    for type_, namespace in events:
        unit.event(type_, kind=kind, namespace=namespace, name=name, now=time.time(), data={"n": 1})
    assert await store.write(unit)


async def read(
    store: Store, principal: Principal = ADMIN, bell: LocalDoorbell | None = None, **given: object
) -> EventsFound:
    log = FeedbackLog(store, bell or LocalDoorbell(), CURSORS)
    call = Call(principal, "feedback.read", time.time())
    return await log.read(call, FeedbackInput.model_validate(given))


def types(page: EventsFound) -> list[str]:
    return [event.type for event in page.events]


async def test_events_come_in_order_and_go_on_from_the_cursor(store: Store) -> None:
    """Every event is read once, oldest first, whatever the page's size."""
    wanted = [f"t.{number}" for number in range(7)]
    await happen(store, *((type_, "one") for type_ in wanted))
    seen: list[str] = []
    page = await read(store, limit=3)
    while page.events:
        seen += types(page)
        page = await read(store, limit=3, after=page.cursor)
    assert seen == wanted
    await happen(store, ("late", "one"))
    assert types(await read(store, after=page.cursor)) == ["late"]


async def test_a_principal_sees_its_namespaces_only(store: Store) -> None:
    """Others' events, and the installation's own, are neither shown nor counted nor felt in the cursor."""
    await happen(store, ("mine", "one"), ("yours", "two"), ("plane.started", ""))
    assert types(await read(store, ONE)) == ["mine"]
    assert types(await read(store, TWO)) == ["mine", "yours"]
    assert types(await read(store, ADMIN)) == ["mine", "yours", "plane.started"]
    before = (await read(store, ONE)).cursor
    await happen(store, *[("yours", "two")] * 5)
    assert (await read(store, ONE)).cursor == before


async def test_cursors_tell_no_counts(store: Store) -> None:
    """Two cursors of one reader say nothing of how much lies between them."""
    await happen(store, ("mine", "one"), *[("yours", "two")] * 40, ("mine", "one"))
    first, last = (event.cursor for event in (await read(store, ONE)).events)
    assert first != last
    assert not any(cursor.isdigit() for cursor in (first, last))
    assert len(first) == len(last) == len(CURSORS.seal(2**62))


@pytest.mark.parametrize("cursor", ["41", "", "x" * 26, "zzzz", Cursors(b"another").seal(3), CURSORS.seal(3).upper()])
async def test_a_foreign_cursor_is_refused(store: Store, cursor: str) -> None:
    """What is not one of our cursors is INVALID_CURSOR, never a guess; none at all is the beginning."""
    if not cursor:
        assert (await read(store, after=cursor)).events == []
        return
    with pytest.raises(Refusal) as refused:
        await read(store, after=cursor)
    assert refused.value.problem.reason == "INVALID_CURSOR"
    assert refused.value.problem.field == "/after"


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"types": ["change.*"]}, ["change.committed", "change.done"]),
        ({"types": ["change.done", "turn.failed"]}, ["change.done", "turn.failed"]),
        ({"types": ["change"]}, []),
        ({"types": ["change%"]}, []),
        ({"types": ["Change.*"]}, []),
        ({"namespace": "two"}, ["turn.failed"]),
        ({"kind": "Channel"}, ["resource.created"]),
        ({"kind": "Channel", "name": "b"}, ["resource.created"]),
        ({"name": "nobody"}, []),
    ],
)
async def test_filters(store: Store, wanted: dict[str, object], expected: list[str]) -> None:
    """All that is given must match; types match whole or by prefix."""
    await happen(store, ("change.committed", "one"), ("change.done", "one"), ("turn.failed", "two"))
    await happen(store, ("resource.created", "one"), kind="Channel", name="b")
    assert types(await read(store, filter=EventFilter.model_validate(wanted))) == expected


async def test_a_filter_on_a_foreign_namespace_is_refused(store: Store) -> None:
    """The refusal names the namespace that was asked for, and nothing else."""
    with pytest.raises(Refusal) as refused:
        await read(store, ONE, filter={"namespace": "two"})
    assert refused.value.problem.reason == "FOREIGN_NAMESPACE"
    assert refused.value.problem.field == "/filter/namespace"


async def test_a_rare_filter_does_not_scan_the_same_stretch_again(store: Store) -> None:
    """The cursor moves past visible events that the filter left out."""
    await happen(store, *[("common", "one")] * 5)
    page = await read(store, ONE, filter={"types": ["rare"]})
    assert page.events == []
    assert (await read(store, ONE, after=page.cursor)).events == []


async def test_waiting_ends_with_the_first_event(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ring brings the event at once, long before the next look."""
    bell = LocalDoorbell()
    pages: list[EventsFound] = []

    async def wait() -> None:
        pages.append(await read(store, bell=bell, wait_s=20))

    monkeypatch.setattr(tail, "LOOK_AGAIN_S", 600.0)  # so that nothing but the ring can bring it
    with anyio.fail_after(15):
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await anyio.sleep(0.05)
            await happen(store, ("now", "one"))
            bell.ring()
    assert types(pages[0]) == ["now"]


async def test_a_ring_while_the_log_is_looked_at_is_heard() -> None:
    """What is committed behind the look's snapshot is looked at again at once, not a second later."""
    bell = LocalDoorbell()
    before = bell.rung
    bell.ring()
    with anyio.fail_after(5):
        await bell.wait(600, since=before)


async def test_a_missed_ring_costs_a_second(store: Store) -> None:
    """Without any ring the log is looked at again within a second or so."""
    pages: list[EventsFound] = []

    async def wait() -> None:
        pages.append(await read(store, wait_s=20))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await anyio.sleep(0.05)
            await happen(store, ("unheard", "one"))
    assert types(pages[0]) == ["unheard"]


async def test_waiting_for_nothing_ends_in_time(quick_store: Store) -> None:
    """A timeout is no error: the answer is empty, and its cursor goes on from there."""
    page = await read(quick_store, wait_s=0.2)
    assert page.events == []
    assert CURSORS.open(page.cursor) == 0


async def test_who_waits_is_told_when_the_plane_stops(quick_store: Store) -> None:
    """Closing the doorbell ends every wait at once, with a Problem that says to come back."""
    bell = LocalDoorbell()
    reasons: list[str] = []

    async def wait() -> None:
        try:
            await read(quick_store, bell=bell, wait_s=20)
        except Refusal as refusal:
            reasons.append(refusal.problem.reason)

    with anyio.fail_after(2):
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await anyio.sleep(0.05)
            await anyio.to_thread.run_sync(bell.close)
    assert reasons == ["NOT_READY"]
