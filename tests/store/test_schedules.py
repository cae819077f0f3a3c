"""When timers are due: without drift, over the days on which clocks are moved, and after an outage."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import orjson
import pytest
from cronsim import CronSim
from hypothesis import given
from hypothesis import strategies as st

from controlplane.effects.entries import timer_begin
from controlplane.effects.firing import ON_TIME_S, Due, fired
from controlplane.store import schedules
from controlplane.store import statements as sql
from controlplane.store.schedules import COUNTED_MAX, MADE_UP_MAX, Schedule, first_at, passed
from schemas.cron import require_cron, require_zone, zones

BERLIN = "Europe/Berlin"
T = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


def _berlin(text: str, *, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(BERLIN), fold=fold).timestamp()


def _following(cron: str, after: str, many: int, zone: str = BERLIN) -> list[str]:
    """The next times, as the clocks there show them, with their offset from UTC."""
    schedule, at, found = Schedule(cron=cron, zone=zone), _berlin(after), []
    for _ in range(many):
        due = first_at(schedule, None, at)
        assert due is not None
        at = due
        found.append(datetime.fromtimestamp(at, ZoneInfo(zone)).strftime("%d %H:%M%z"))
    return found


def test_a_time_that_a_day_does_not_have_is_moved_behind_the_gap() -> None:
    """On the last Sunday of March 2026 Berlin has no 2:30: the day's work is done at 3:00, once."""
    assert _following("30 2 * * *", "2026-03-28T12:00", 3) == ["29 03:00+0200", "30 02:30+0200", "31 02:30+0200"]


def test_a_time_that_a_day_has_twice_is_the_first_of_the_two() -> None:
    """On the last Sunday of October 2026 Berlin has 2:30 twice; and in between, nothing is due in the past."""
    assert _following("30 2 * * *", "2026-10-24T12:00", 3) == ["25 02:30+0200", "26 02:30+0100", "27 02:30+0100"]
    within = _berlin("2026-10-25T02:10", fold=1)
    due = first_at(Schedule(cron="30 2 * * *", zone=BERLIN), None, within)
    assert due is not None
    assert due > within


def test_what_names_no_hour_goes_by_the_time_that_passes() -> None:
    """Every half hour is every half hour: the missing hour is left out, the doubled one counts twice."""
    assert _following("*/30 * * * *", "2026-03-29T01:15", 3) == ["29 01:30+0100", "29 03:00+0200", "29 03:30+0200"]
    shown = ["25 02:30+0200", "25 02:00+0100", "25 02:30+0100", "25 03:00+0100"]
    assert _following("*/30 * * * *", "2026-10-25T02:05", 4) == shown


def test_intervals_do_not_drift() -> None:
    """A thousand firings, each of them looked at late, are at the thousandth multiple."""
    schedule, at = Schedule(every_s=0.1), T
    for number in range(1_000):
        following = passed(schedule, at, at + number % 7 * 0.01).next_at
        assert following is not None
        at = following
    assert at == pytest.approx(T + 100, abs=1e-4)


@given(st.floats(0.05, 1e6), st.floats(0, 1e8))
def test_the_next_time_is_after_now_and_by_one_interval_at_most(every_s: float, late_s: float) -> None:
    """However late: the count is that of the times that are over, the newest of which are listed in their order."""
    over = passed(Schedule(every_s=every_s), T, T + late_s)
    assert over.next_at is not None
    assert T + late_s - 1e-3 <= over.next_at <= T + late_s + every_s * 1.001 + 1e-3
    assert len(over.times) == min(over.many, MADE_UP_MAX)
    assert list(over.times) == sorted(over.times)


def test_a_long_outage_is_counted_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute's expression after ten years: the newest times are known, the count stops, and so does the looking."""
    schedule, now = Schedule(cron="* * * * *", zone=BERLIN), T + 10 * 365 * 86_400 + 30
    steps: list[datetime] = []

    class Counted(CronSim):
        def __next__(self) -> datetime:
            steps.append(found := super().__next__())
            return found

    monkeypatch.setattr(schedules, "CronSim", Counted)
    over = passed(schedule, T, now)
    assert len(steps) <= COUNTED_MAX + MADE_UP_MAX + 1
    assert over.many == COUNTED_MAX
    assert over.next_at == now + 30
    assert over.times == tuple(now - 30 - 60 * back for back in reversed(range(MADE_UP_MAX)))


@pytest.mark.parametrize("text", ["* * * *", "61 * * * *", "0 0 30 2 *", "0 0 */31 2 MON#5", "@daily", "a b c d e", ""])
def test_what_is_no_expression_or_never_due_is_refused(text: str) -> None:
    """With the reason in words."""
    with pytest.raises(ValueError, match=r"no cron expression|never due"):
        require_cron(text)


def test_zones_are_those_of_the_pinned_package() -> None:
    """Names are whole and exact; each of them is to be had."""
    for name in ("Berlin", "europe/berlin", "Europe", "../etc/passwd", ""):
        with pytest.raises(ValueError, match="no time zone"):
            require_zone(name)
    assert len(zones()) > 400
    for name in zones():
        assert datetime.now(ZoneInfo(name)).utcoffset() is not None


# Policies


def _due(**more: object) -> Due:
    given = {
        "agent": "a", "name": "tick", "version": 1, "due_at": T, "every_s": 10.0, "data": "null", "cron": None,
        "zone": None, "missed": "fire_once", "behind": 0, "namespace": "default", "of": "x",
    }  # fmt: skip
    return Due(**{**given, **more})  # type: ignore[arg-type]


def _told(timer: Due, waiting: int, now: float) -> tuple[list[tuple[float, int]], float | None, int]:
    """The messages of a firing (scheduled for, missed before), the next time, and what is left to tell."""
    rows, next_at = fired(timer, waiting, now)
    bodies = [orjson.loads(row[1][3]) for row in rows if row[0] == sql.PUT]
    told = [(datetime.fromisoformat(it["scheduledat"]).timestamp(), it["missed"]) for it in bodies]
    behind = [row[1][1] for row in rows if row[0] == sql.TIMER_ADVANCE]
    return told, next_at, behind[0] if behind else 0


def test_fire_once_tells_the_last_time_and_counts_the_others() -> None:
    """Also those for which the message of before still waited."""
    assert _told(_due(), 0, T + 0.1) == ([(T, 0)], T + 10, 0)
    assert _told(_due(), 0, T + 35) == ([(T + 30, 3)], T + 40, 0)
    assert _told(_due(), 1, T + 35) == ([], T + 40, 4)
    assert _told(_due(behind=4), 0, T + 1) == ([(T, 4)], T + 10, 0)


def test_skip_tells_only_what_is_on_time() -> None:
    """A time that nobody looked at within ten seconds has no message; the next one counts it."""
    daily = _due(every_s=86_400.0, missed="skip")
    assert _told(daily, 0, T + ON_TIME_S - 0.1) == ([(T, 0)], T + 86_400, 0)
    assert _told(daily, 0, T + ON_TIME_S + 0.1) == ([], T + 86_400, 1)
    assert _told(daily, 0, T + 86_401) == ([(T + 86_400, 1)], T + 2 * 86_400, 0)


def test_all_makes_up_for_the_newest_hundred() -> None:
    """Each with its own time, in order; what is beyond is counted in the first of them."""
    every = _due(missed="all")
    assert _told(every, 0, T + 25) == ([(T, 0), (T + 10, 0), (T + 20, 0)], T + 30, 0)
    told, next_at, behind = _told(every, 0, T + 10 * 149 + 1)
    assert (len(told), next_at, behind) == (MADE_UP_MAX, T + 1500, 0)
    assert told[0] == (T + 500, 50)
    assert {missed for _, missed in told[1:]} == {0}


def test_all_is_bounded_by_what_is_not_handled_yet() -> None:
    """A slow agent's inbox holds a hundred messages of a timer at most; the rest is counted."""
    every = _due(missed="all")
    assert _told(every, MADE_UP_MAX, T + 25) == ([], T + 30, 3)
    assert _told(every, MADE_UP_MAX - 1, T + 25) == ([(T + 20, 2)], T + 30, 0)


def test_a_timer_that_is_set_once_fires_once_however_late() -> None:
    """And is over then."""
    rows, next_at = fired(_due(every_s=None), 0, T + 1e6)
    assert next_at is None
    assert [row[0] for row in rows] == [sql.TIMER_END, sql.PUT]


def test_each_scheduled_time_has_an_id_of_its_own() -> None:
    """The same whoever makes it, another for each time, version and timer."""

    def ids(timer: Due, now: float) -> list[str]:
        return [row[1][1] for row in fired(timer, 0, now)[0] if row[0] == sql.PUT]

    assert ids(_due(missed="all"), T + 25) == ids(_due(missed="all"), T + 26)
    of_all = ids(_due(missed="all"), T + 25) + ids(_due(version=2), T) + ids(_due(name="b"), T)
    assert len(set(of_all)) == 5
    assert timer_begin("tick") == '{"type":"steward.timer","subject":"tick",'
