"""What is no longer kept, and is taken away a little at a time.

Gone are: plans that expired uncommitted; secret values whose time is over; finished turns with their journals and
awaits, except one of which an await is open, or was until lately, and the turn that started an agent which is still
there, because its condition `Ready` rests on it; answers that operators waited for; events; messages of channels,
not beyond the slowest subscription unless that lags by more than it may, nor what a queue has still to give, and
memberships that ended before what is left of them; hosts that ended; sums of usage, and chains; dead letters, which
is told; vectors of what nobody says any more; what came in over connections a week ago, and delayed messages that
were cancelled then.
Gone are also tombstones of agents that agents had spawned, on a walk along the names, some of them in each sweep.
Kept are all other tombstones, changes, claims and code. Each step takes `ROWS_MAX` records at most and is a unit of
its own, so the writer is never held for long; a sweep repeats it while it is full, so that what is kept does not grow
with how fast it comes. With an archive, turns are written down before they go. Answers under request ids are
swept by whoever keeps them.
"""

from dataclasses import dataclass

import anyio.to_thread
from sqlalchemy import delete, text
from sqlmodel import Session, col

from controlplane.store import arrivals, letters, members, tombstones
from controlplane.store.archive import Archive, records
from controlplane.store.channels import FORGET_MEMBERS
from controlplane.store.discovery import UNUSED_MEANINGS
from controlplane.store.invitations import INVITATIONS
from controlplane.store.queues import CANCELLED_DELAYED
from controlplane.store.scopes import CLEARED
from controlplane.store.store import Store
from controlplane.store.tables import AwaitRow, JournalRow, TurnRow
from controlplane.store.traffic import TRAFFIC
from controlplane.store.unit import Unit

ROWS_MAX = 500
ROUNDS_MAX = 400  # of each step in one sweep
NAMES_ROUNDS_MAX = 20  # of names that may be tombstones
START_OVER_S = 3_600.0
INVITATION_KEPT_S = 604_800.0  # so long one that is over is still listed
CANCELLED_KEPT_S = 604_800.0  # so long a delayed message that was cancelled is not taken in again
MEANING_KEPT_S = 3_600.0  # a text that was just compared may be somebody's in a moment

EXPIRED_PLAN_KEPT_S = 604_800.0  # so long a commit can still be told that its plan has expired
PLANS = """DELETE FROM plan WHERE plan_id IN (SELECT plan_id FROM plan
WHERE change_id IS NULL AND expires_at < ? ORDER BY expires_at LIMIT ?)"""
SECRETS = """DELETE FROM secret_value WHERE ref IN (SELECT ref FROM secret_value
WHERE expires_at IS NOT NULL AND expires_at < ? ORDER BY expires_at LIMIT ?)"""
EVENTS = """DELETE FROM event WHERE cursor IN (SELECT cursor FROM (SELECT cursor, time FROM event
ORDER BY cursor LIMIT ?) AS oldest WHERE time < ?)"""
ANSWERS = """DELETE FROM awaiting WHERE await_id IN (SELECT await_id FROM awaiting
WHERE turn_id IS NULL AND resolved_at < ? ORDER BY resolved_at LIMIT ?)"""
HOSTS = """DELETE FROM host WHERE host_id IN (SELECT host_id FROM host WHERE ended_at < ? LIMIT ?)"""
USAGE = """DELETE FROM usage WHERE (namespace, agent, hour, effect, connection, meter, chain, fleet) IN (SELECT
namespace, agent, hour, effect, connection, meter, chain, fleet FROM usage WHERE hour < ? ORDER BY hour LIMIT ?)"""
COMMON_USAGE = """DELETE FROM usage_common WHERE (namespace, agent, hour, effect, connection, fleet) IN (SELECT
namespace, agent, hour, effect, connection, fleet FROM usage_common WHERE hour < ? ORDER BY hour LIMIT ?)"""
# Those of living agents stay, and with them what they are within.
CHAINS = """DELETE FROM chain WHERE chain_id IN (SELECT c.chain_id FROM chain c WHERE c.created_at < ?
AND NOT EXISTS (SELECT 1 FROM agent a WHERE a.chain = c.chain_id)
AND NOT EXISTS (SELECT 1 FROM chain b WHERE b.parent = c.chain_id) ORDER BY c.created_at LIMIT ?)"""
# Of each channel, the oldest messages are looked at, by its key; what is younger than one behind it keeps that. A queue
# keeps what no member has yet; a broadcast what a member has not got, unless that one lags by more than it may.
MESSAGES = """DELETE FROM channel_message WHERE (channel, position) IN (SELECT m.channel, m.position
FROM channel c CROSS JOIN channel_message m WHERE m.channel = c.uid
AND m.position < ? + (SELECT MIN(x.position) FROM channel_message x WHERE x.channel = c.uid)
AND m.accepted_at < ? - c.retention_s
AND NOT EXISTS (SELECT 1 FROM channel_message y WHERE y.channel = c.uid AND y.position < m.position
AND y.accepted_at >= ? - c.retention_s)
AND m.position <= COALESCE(CASE WHEN c.mode = 'queue'
THEN (SELECT MIN(q.position) - 1 FROM queued q WHERE q.channel = c.uid)
ELSE (SELECT CASE WHEN MIN(s.position) < c.next_position - 1 - c.backlog_max THEN c.next_position - 1 - c.backlog_max
ELSE MIN(s.position) END FROM subscription s WHERE s.channel = c.uid) END, m.position) LIMIT ?)"""
# A deleted channel leaves its messages for as long as its tombstone may be taken back.
ORPHANED = """DELETE FROM channel_message WHERE (channel, position) IN (SELECT m.channel, m.position
FROM resource r CROSS JOIN channel_message m WHERE r.kind = 'Channel' AND r.deleted_at < ?
AND m.channel = r.uid LIMIT ?)"""
# Turn, when it finished, and whether something rests on it: a living agent on its start, or whoever is still to hear,
# or has yet to look at, what an await of it comes to.
FINISHED = """SELECT t.turn_id, t.finished_at,
(t.trigger = 'start' AND (SELECT a.uid FROM agent a WHERE a.uid = t.agent) IS NOT NULL)
OR (SELECT w.await_id FROM awaiting w WHERE w.turn_id = t.turn_id
AND (w.resolved_at IS NULL OR w.resolved_at >= :before) LIMIT 1) IS NOT NULL AS needed
FROM turn t WHERE t.finished_at > :after AND t.finished_at < :before ORDER BY t.finished_at LIMIT :many"""


@dataclass
class Retention:
    """Sweeps one store. It remembers how far it looked at turns, and from time to time starts over."""

    store: Store
    turn_retention_s: float
    event_retention_s: float
    usage_retention_s: float = 34_560_000.0
    dead_letter_retention_s: float = 7_776_000.0
    archive: Archive | None = None
    looked_until: float = 0.0
    start_over_at: float = 0.0
    names_after: tuple[str, str] = ("", "")

    async def sweep(self, now: float) -> None:
        """One round over everything; what a conflict leaves is met again in the next."""
        for sql, params in self.steps(now):
            await self._emptied(sql, params)
        await self._members(now)
        await self._turns(now)
        await self._letters(now)
        await self._tombstones(now)

    def steps(self, now: float) -> list[tuple[str, list[float]]]:
        """What needs no reading first."""
        turns_before = now - self.turn_retention_s
        return [
            (PLANS, [now - EXPIRED_PLAN_KEPT_S, ROWS_MAX]),
            (SECRETS, [now, ROWS_MAX]),
            (EVENTS, [ROWS_MAX, now - self.event_retention_s]),
            (ANSWERS, [turns_before, ROWS_MAX]),
            (HOSTS, [turns_before, ROWS_MAX]),
            (MESSAGES, [ROWS_MAX, now, now, ROWS_MAX]),
            (ORPHANED, [turns_before, ROWS_MAX]),
            (FORGET_MEMBERS, [ROWS_MAX]),
            (USAGE, [int(now - self.usage_retention_s) // 3600, ROWS_MAX]),
            (COMMON_USAGE, [int(now - self.usage_retention_s) // 3600, ROWS_MAX]),
            (CHAINS, [now - self.usage_retention_s, ROWS_MAX]),
            (INVITATIONS, [now - INVITATION_KEPT_S, ROWS_MAX]),
            (CANCELLED_DELAYED, [now - CANCELLED_KEPT_S, ROWS_MAX]),
            (TRAFFIC, [now - self.usage_retention_s, ROWS_MAX]),
            (CLEARED, [turns_before, ROWS_MAX]),
            (UNUSED_MEANINGS, [now - MEANING_KEPT_S, ROWS_MAX]),
            (arrivals.FORGET, [now - arrivals.KEPT_S, ROWS_MAX]),
        ]

    async def _emptied(self, sql: str, params: list[float]) -> None:
        """A step that must be full goes as often as it is; then what is left goes."""
        for _ in range(ROUNDS_MAX - 1):
            if not await self.store.write(Unit().raw(sql, params, ROWS_MAX)):
                break
        await self.store.write(Unit().raw(sql, params))

    async def _members(self, now: float) -> None:
        """Members whose lease is over; each is told."""

        def some(expect: int | None) -> Unit:
            unit = Unit().raw(members.EXPIRED_EVENT, [now, now, ROWS_MAX], expect)
            return unit.raw(members.EXPIRE, [now, ROWS_MAX], expect)

        for _ in range(ROUNDS_MAX - 1):
            if not await self.store.write(some(ROWS_MAX)):
                break
        await self.store.write(some(None))

    async def _turns(self, now: float) -> None:
        """Finished turns that are old enough, in the order in which they finished."""
        if not self.start_over_at - START_OVER_S <= now < self.start_over_at:  # in time, or the clock went back
            self.looked_until, self.start_over_at = 0.0, now + START_OVER_S
        for _ in range(ROUNDS_MAX):
            if await self._some_turns(now) < ROWS_MAX:
                return

    async def _some_turns(self, now: float) -> int:
        """How many were looked at; those that nothing rests on are gone, the others are met again after a while."""
        after, before = self.looked_until, now - self.turn_retention_s
        found = await self.store.read(lambda session: _finished(session, after, before))
        gone = [turn_id for turn_id, _, needed in found if not needed]
        if gone:
            await self._archived(gone, now)
            await self.store.write(_forget(gone))
        if found:
            self.looked_until = found[-1][1]
        return len(found)

    async def _archived(self, turns: list[str], now: float) -> None:
        if self.archive is not None:
            found = await self.store.read(lambda session: records(session, turns))
            await anyio.to_thread.run_sync(self.archive.append, found, now)

    async def _letters(self, now: float) -> None:
        """Dead letters that are old enough, by their numbers, which go round where a table was emptied."""
        before, after = now - self.dead_letter_retention_s, 0
        for _ in range(ROUNDS_MAX):
            found = await self._some_letters(after)
            gone = [it for it in found if it.at < before and not it.needed]
            if gone:
                await self.store.write(letters.forget(gone, now))
            if len(found) < ROWS_MAX or found[-1].at >= before:
                return
            after = found[-1].id

    async def _tombstones(self, now: float) -> None:
        """Some names further each time, and from the first one again."""
        for _ in range(NAMES_ROUNDS_MAX):
            if not await self._some_names(now - self.turn_retention_s):
                return

    async def _some_names(self, before: float) -> bool:
        """Whether there are more behind."""
        after = self.names_after
        found = await self.store.read(lambda session: tombstones.names(session, after, before, ROWS_MAX))
        if gone := [it.uid for it in found if it.forgotten]:
            await self.store.write(tombstones.forget(gone))
        more = len(found) == ROWS_MAX
        self.names_after = found[-1][:2] if more else ("", "")
        return more

    async def _some_letters(self, after: int) -> list[letters.Letter]:
        return await self.store.read(lambda session: letters.oldest(session, after, ROWS_MAX))


def _finished(session: Session, after: float, before: float) -> list[tuple[str, float, bool]]:
    rows = session.connection().execute(text(FINISHED), {"after": after, "before": before, "many": ROWS_MAX})
    return [(turn_id, float(at), bool(needed)) for turn_id, at, needed in rows]


def _forget(turns: list[str]) -> Unit:
    return (
        Unit()
        .run(delete(JournalRow).where(col(JournalRow.turn_id).in_(turns)))
        .run(delete(AwaitRow).where(col(AwaitRow.turn_id).in_(turns)))
        .run(delete(TurnRow).where(col(TurnRow.turn_id).in_(turns)))
    )
