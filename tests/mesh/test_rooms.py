"""What a publish costs, counted: as much for each, whatever waits in a queue, and whichever members have no room."""

import time
from collections import Counter, defaultdict
from typing import Any

import pytest

from controlplane.effects.reading import Reader
from controlplane.mesh.delivery import FULL_MAX, Delivery
from controlplane.mesh.publishing import channel_rows
from controlplane.mesh.rooms import RECOUNT, RETRY_AFTER_S, Rooms
from controlplane.store import queues
from controlplane.store import statements as sql
from controlplane.store.direct import DirectWriter
from controlplane.store.unit import Unit
from schemas.posting import Placed

pytestmark = pytest.mark.anyio
MOST = 1_000


class Counted:
    """A reader that counts what is asked."""

    def __init__(self, url: str) -> None:
        self.reader = Reader(url)
        self.asked: Counter[str] = Counter()
        self.of: defaultdict[str, list[Any]] = defaultdict(list)  # the first parameters
        self.read = 0  # rows

    def rows(self, sql: str, *params: Any) -> list[tuple[Any, ...]]:
        self.asked[sql] += 1
        self.of[sql] += params[:1]
        found = self.reader.rows(sql, *params)
        self.read += len(found)
        return found

    def one(self, sql: str, *params: Any) -> tuple[Any, ...] | None:
        found = self.rows(sql, *params)
        return found[0] if found else None


async def _prepared(writer: DirectWriter, members: int, waiting: int) -> None:
    unit = Unit()
    for table in ("channel", "channel_message", "subscription", "queued", "inbox", "agent"):
        unit.raw(f"DELETE FROM {table}", [])
    unit.raw(
        "INSERT INTO channel (uid, namespace, name, next_position, retention_s, mode, backlog_max, in_flight_max)"
        " VALUES ('c', 'default', 'work', 1, 60, 'queue', ?, 1)",
        [MOST],
    )
    for n in range(members):
        unit.raw(
            "INSERT INTO agent (uid, namespace, name, generation, epoch, version, stopped, changed_at)"
            " VALUES (?, 'default', ?, 1, 0, 0, 0, 1.0)",
            [f"u{n}", f"a{n}"],
        )
        unit.raw("INSERT INTO subscription (channel, agent, position, since) VALUES ('c', ?, 0, 1.0)", [f"u{n}"])
    for n in range(waiting):
        unit.rows(channel_rows("default", "work", f"m{n}", "{}", Placed("k"), 1.0))
    assert await writer.write(unit.compiled("sqlite"))


async def _published(url: str, members: int, waiting: int) -> Counter[str]:
    """What is asked for some messages of one key, of which one was given, and nobody finishes anything."""
    writer, reader, given = DirectWriter(url), Counted(url), list[tuple[Any, Any]]()

    def commit(_unit: str, rows: Any, done: Any, _lane: int) -> None:
        given.append((rows, done))

    delivery = Delivery(reader, commit, lambda _: None, time.time, 100)

    async def published(message_id: str) -> None:
        delivery.published("default", "work", message_id)
        while given:
            rows, done = given.pop()
            assert await writer.write([(sql, list(params), expect) for sql, params, expect in rows])
            done("ok", "")

    await _prepared(writer, members, waiting)
    await published("")
    reader.asked.clear()
    for n in range(20):
        assert delivery.queues.full("c", "default/work", MOST) is None
        unit = Unit().rows(channel_rows("default", "work", f"n{n}", "{}", Placed("k"), time.time()))
        assert await writer.write(unit.compiled("sqlite"))
        await published(f"n{n}")
    delivery.end()
    reader.reader.close()
    writer.close()
    return reader.asked


async def test_a_publish_costs_the_same_whatever_waits_and_whoever_reads(sqlite_url: str) -> None:
    """Members are counted once, and the backlog too: not for each message."""
    few = await _published(sqlite_url, 2, 1)
    many = await _published(sqlite_url, 60, 200)
    assert few == many
    assert few[queues.MEMBERS] == 0
    assert few[queues.BACKLOG] == 1


async def test_what_is_full_is_counted_once_for_all_it_refuses() -> None:
    """For a moment; what leaves it meanwhile makes room for as many at once."""
    now, counted = [0.0], list[int]()
    rooms = Rooms(10, lambda: now[0])

    def full(waiting: int) -> bool:
        def count() -> int:
            counted.append(waiting)
            return waiting

        return rooms.full("q", 5, count)

    assert [full(5) for _ in range(100)] == [True] * 100
    assert counted == [5]
    rooms.freed("q", 2)
    assert [full(5) for _ in range(4)] == [False, False, True, True]
    assert counted == [5]
    now[0] += RETRY_AFTER_S
    assert [full(3), full(3)] == [False, False]
    assert counted == [5, 3]
    assert full(5)  # what had room is counted again when that is given out
    assert counted == [5, 3, 5]


async def test_counting_costs_each_message_the_same() -> None:
    """A count that finds much waiting is good for more."""
    counted, waiting = list[int](), [0]
    rooms = Rooms(10, lambda: 0.0)

    def count() -> int:
        counted.append(waiting[0])
        return waiting[0]

    for waiting[0] in range(100_000):
        assert not rooms.full("q", 1_000_000, count)
    assert sum(counted) <= 6 * 100_000
    assert len(counted) < 100_000 // RECOUNT


async def test_only_so_many_rooms_are_kept_in_mind() -> None:
    rooms = Rooms(3, lambda: 0.0)
    for n in range(20):
        assert not rooms.full(f"q{n}", 5, lambda: 0)
    assert len(rooms._of) <= 3


async def _told(url: str, full: int) -> tuple[Counter[str], int, list[str]]:
    """What twenty publications of a broadcast ask, and how many rows of it; and who of two that have room got all, with
    so many members beside them whose inboxes are full."""
    writer, reader, given = DirectWriter(url), Counted(url), list[tuple[Any, Any]]()

    def commit(_unit: str, rows: Any, done: Any, _lane: int) -> None:
        given.append((rows, done))

    async def settled() -> None:
        while given:
            rows, done = given.pop()
            assert await writer.write([(sql, list(params), expect) for sql, params, expect in rows])
            done("ok", "")

    async def published(message_id: str) -> None:
        unit = Unit().rows(channel_rows("default", "work", message_id, "{}", Placed(), time.time(), delivery.room))
        assert await writer.write(unit.compiled("sqlite"))
        delivery.published("default", "work", message_id)
        await settled()

    delivery = Delivery(reader, commit, lambda _: None, time.time, 30)
    await _prepared(writer, full + 2, 0)
    unit = Unit().raw("UPDATE channel SET mode = 'broadcast'", [])
    put = "INSERT INTO inbox (agent, message_id, trigger, body, accepted_at, attempts)"
    put += " VALUES (?, ?, 'message', '', 1.0, 0)"
    for agent in range(2, full + 2):
        for n in range(30):
            unit.raw(put, [f"u{agent}", f"old{n}"])
    assert await writer.write(unit.compiled("sqlite"))
    await published("first")
    reader.asked.clear()
    reader.read = 0
    for n in range(20):
        await published(f"n{n}")
    asked, read = Counter(reader.asked), reader.read
    for _ in range(20):  # room comes of its own, which nobody tells; the sweeps see it
        assert await writer.write([("DELETE FROM inbox WHERE message_id LIKE 'old%'", [], -1)])
        delivery.sweep()
        await settled()
    got = reader.rows("SELECT agent FROM inbox GROUP BY agent HAVING COUNT(*) = 21")
    delivery.end()
    reader.reader.close()
    writer.close()
    return asked, read, sorted(agent for (agent,) in got)


async def test_members_that_are_full_cost_a_publication_nothing(sqlite_url: str) -> None:
    """They are neither counted nor looked at for each; once they have room they get all of it."""
    none, many = await _told(sqlite_url, 0), await _told(sqlite_url, 120)
    assert many[:2] == none[:2]
    assert none[0][sql.BACKLOG] == 0
    assert len(many[2]) == 122


async def test_a_sweep_counts_some_of_the_full_and_first_whom_it_counted_longest_ago(sqlite_url: str) -> None:
    """So that many of them do not hold up everything else; whoever is known to have room is looked at beside these."""
    writer, reader = DirectWriter(sqlite_url), Counted(sqlite_url)
    delivery = Delivery(reader, lambda *_: None, lambda _: None, time.time, 1)
    members = 2 * FULL_MAX + 20
    await _prepared(writer, members, 0)
    unit = Unit().raw("UPDATE channel SET mode = 'broadcast'", [])
    unit.raw("INSERT INTO inbox (agent, message_id, trigger, body, accepted_at, attempts)"
             " SELECT uid, 'm', 'message', '', 1.0, 0 FROM agent", [])  # fmt: skip
    unit.rows(channel_rows("default", "work", "first", "{}", Placed(), 1.0))
    assert await writer.write(unit.compiled("sqlite"))
    counted: list[list[str]] = []
    for _ in range(4):
        reader.of.clear()
        delivery.sweep()
        counted.append(reader.of[sql.BACKLOG])
    assert [len(it) for it in counted] == [members, FULL_MAX, FULL_MAX, FULL_MAX]
    assert not set(counted[1]) & set(counted[2])
    assert set(counted[0]) == set(counted[1]) | set(counted[2]) | set(counted[3])
    delivery.freed(counted[3][-1])
    reader.of.clear()
    delivery.sweep()
    assert counted[3][-1] in reader.of[sql.BACKLOG]
    delivery.end()
    reader.reader.close()
    writer.close()
