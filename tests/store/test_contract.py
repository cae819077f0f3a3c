"""What every room may rely on: units, conflicts, reading, the order of events."""

import threading
from functools import partial
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from sqlalchemy import delete, insert, update
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session, col, select

from controlplane.store.committer import Job
from controlplane.store.direct import DirectWriter
from controlplane.store.location import open_url
from controlplane.store.store import Store
from controlplane.store.tables import EventRow, LabelRow, Meta
from controlplane.store.unit import Unit
from schemas.problem import Refusal

pytestmark = pytest.mark.anyio


def put(key: str, value: str) -> Unit:
    return Unit().run(insert(Meta).values(key=key, value=value), 1)


def swap(key: str, old: str, new: str) -> Unit:
    return Unit().run(update(Meta).where(col(Meta.key) == key, col(Meta.value) == old).values(value=new), 1)


def keys(session: Session) -> dict[str, str]:
    return {row.key: row.value for row in session.exec(select(Meta).where(Meta.key != "writer"))}


def cursors(session: Session, after: int = 0) -> list[int]:
    query = select(col(EventRow.cursor)).where(col(EventRow.cursor) > after).order_by(col(EventRow.cursor))
    return [cursor for cursor in session.exec(query).all() if cursor is not None]


async def test_a_write_is_read_at_once(store: Store) -> None:
    """What was answered as written is seen by the next read."""
    for number in range(20):
        assert await store.write(put(f"k{number}", "v"))
        assert len(await store.read(keys)) == number + 1


async def test_a_unit_happens_as_a_whole_or_not_at_all(store: Store) -> None:
    """One statement that misses its count takes the others with it, events too."""
    await store.write(put("a", "1"))
    unit = put("b", "1").add(swap("a", "no", "2")).event("x.y", kind="Meta", namespace="default", name="b", now=1.0)
    assert await store.write(unit) is False
    assert await store.read(keys) == {"a": "1"}
    assert await store.read(lambda session: session.exec(select(EventRow)).all()) == []


async def test_compare_and_set_has_one_winner(store: Store) -> None:
    """Of many that swap the same value at once, one wins and the others are told."""
    await store.write(put("a", "old"))
    won: list[bool] = []

    async def attempt(number: int) -> None:
        won.append(await store.write(swap("a", "old", f"new{number}")))

    async with anyio.create_task_group() as group:
        for number in range(40):
            group.start_soon(attempt, number)
    assert sorted(won) == [False] * 39 + [True]


async def test_a_bad_unit_harms_nobody_beside_it(store: Store) -> None:
    """Errors and conflicts in a full batch are told to those who caused them, and only to them."""
    told: dict[int, object] = {}

    async def write(number: int) -> None:
        unit = put(f"k{number}", "v")
        if number % 10 == 3:
            unit = unit.raw("INSERT INTO nowhere VALUES (?)", [number])
        elif number % 10 == 4:
            unit = unit.add(swap("absent", "a", "b"))
        elif number % 10 == 5:
            unit = unit.run(insert(Meta).values(key=f"k{number}", value="twice"))
        try:
            told[number] = await store.write(unit)
        except Refusal as refusal:
            told[number] = refusal.problem.reason

    async with anyio.create_task_group() as group:
        for number in range(200):
            group.start_soon(write, number)
    for number, outcome in told.items():
        assert outcome == {3: "INTERNAL", 4: False, 5: "INTERNAL"}.get(number % 10, True), number
    assert set(await store.read(keys)) == {f"k{n}" for n in range(200) if n % 10 not in (3, 4, 5)}


async def test_parameters_that_no_database_takes_are_refused(store: Store) -> None:
    """A number too large for 64 bits, or half a character, is an error of that unit, and the writer lives."""
    for value in (2**70, "\ud800"):
        with pytest.raises(Refusal):
            await store.write(Unit().raw("UPDATE meta SET value = ? WHERE key = 'x'", [value]))
    with pytest.raises(TypeError):
        await store.write(Unit().raw("UPDATE meta SET value = ?", [{"no": "scalar"}]))  # type: ignore[list-item]
    assert await store.write(put("after", "v"))


async def test_events_are_read_in_the_order_of_commits(store: Store) -> None:
    """A cursor handed out before never has a smaller one appear behind it."""

    async def write(number: int) -> None:
        await store.write(Unit().event("x.y", kind="Meta", namespace="default", name=f"n{number}", now=float(number)))

    seen: list[int] = []

    async def follow() -> None:
        while len(seen) < 150:
            seen.extend(await store.read(partial(cursors, after=seen[-1] if seen else 0)))
            await anyio.lowlevel.checkpoint()

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(follow)
            for number in range(150):
                group.start_soon(write, number)
    assert seen == await store.read(cursors)


async def test_a_cursor_never_goes_back(store: Store) -> None:
    """Sweeping all events does not let their cursors be used again."""

    async def last() -> int:
        await store.write(Unit().event("x.y", kind="Meta", namespace="d", name="n", now=1.0))
        newest = select(col(EventRow.cursor)).order_by(col(EventRow.cursor).desc())
        return await store.read(lambda session: session.exec(newest).first()) or 0

    before = await last()
    await store.write(Unit().run(delete(EventRow)))
    assert await last() > before


async def test_reading_can_not_write(store: Store) -> None:
    """Whoever tries to write in a read is refused by the database."""

    def query(session: Session) -> None:
        session.add(Meta(key="a", value="b"))
        session.flush()

    with pytest.raises(DBAPIError):
        await store.read(query)
    assert await store.read(keys) == {}


async def test_a_read_is_one_snapshot(store: Store, writer: DirectWriter) -> None:
    """What is committed while a query runs is not seen by its second half."""
    await store.write(put("a", "1"))
    outcomes: list[str] = []

    def query(session: Session) -> tuple[int, int]:
        first, told = len(keys(session)), threading.Event()

        def done(outcome: str, _: str) -> None:
            outcomes.append(outcome)
            told.set()

        writer.committer.submit(Job(put("b", "1").compiled(store.dialect), done))
        assert told.wait(10)
        session.expire_all()
        return first, len(keys(session))

    assert await store.read(query) == (1, 1)
    assert outcomes == ["ok"]
    assert len(await store.read(keys)) == 2


async def test_a_compiled_statement_serves_other_values(store: Store) -> None:
    """Statements that differ in values alone do what they say, lists of any length too."""
    for name in "abcd":
        await store.write(
            Unit().run(insert(LabelRow).values(kind="Agent", namespace="d", key="k", value=f"v{name}", name=name), 1)
        )
    for names in (["a"], ["b", "c"], []):
        await store.write(Unit().run(delete(LabelRow).where(col(LabelRow.name).in_(names)), len(names)))
    left = await store.read(lambda session: session.exec(select(LabelRow)).all())
    assert [(row.name, row.value) for row in left] == [("d", "vd")]


async def test_quotes_and_percent_signs_are_only_text(store: Store) -> None:
    """A question mark in quotes is no parameter, and a percent sign needs no care."""
    unit = Unit().raw("INSERT INTO meta (key, value) VALUES (?, 'what? 100%' || ?)", ["k?%s", "%s?"], 1)
    assert await store.write(unit)
    assert await store.read(keys) == {"k?%s": "what? 100%%s?"}


async def test_an_empty_unit_is_done(store: Store) -> None:
    """Nothing to do is done, without asking the writer."""
    assert await store.write(Unit()) is True


def test_urls_have_one_form(tmp_path: Path) -> None:
    """Every spelling of a url ends as one of two; others are refused with what would do."""
    assert open_url(None, tmp_path / "s.db") == f"sqlite:///{tmp_path}/s.db"
    for url in ("postgres://h/d", "postgresql://h/d", "postgresql+psycopg://h/d"):
        assert open_url(url, tmp_path) == "postgresql://h/d"
    with pytest.raises(Refusal) as refused:
        open_url("mysql://h/d", tmp_path)
    assert refused.value.problem.reason == "INVALID_VALUE"
