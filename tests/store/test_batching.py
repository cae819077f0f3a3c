"""Which jobs share a transaction, and which statements a call."""

from hypothesis import given
from hypothesis import strategies as st

from controlplane.store import handing
from controlplane.store import statements as sql
from controlplane.store.batching import (
    BYTES_MAX,
    JOBS_MAX,
    LANE_1_SHARE,
    Behind,
    Guard,
    Job,
    Lanes,
    Many,
    grouped,
    size_of,
)


def job(*sqls: str, lane: int = 0, size: int = 0) -> Job:
    return Job([(sql, [number, "x" * size], 1) for number, sql in enumerate(sqls)], lambda outcome, detail: None, lane)


def test_lane_0_goes_first_and_lane_1_keeps_its_share() -> None:
    """A flood in either lane leaves the other its place in every batch."""
    lanes = Lanes()
    for _ in range(1000):
        lanes.put(job("a"))
        lanes.put(job("b", lane=1))
    batch = lanes.take()
    assert [each.lane for each in batch] == [0] * (JOBS_MAX - JOBS_MAX // LANE_1_SHARE) + [1] * (
        JOBS_MAX // LANE_1_SHARE
    )


def test_a_batch_is_bounded_in_bytes_and_never_empty() -> None:
    """Large jobs go in small batches, one that is too large goes alone, and each lane in its order."""
    lanes = Lanes()
    huge = job("a", size=BYTES_MAX * 2)
    lanes.put(huge)
    rest = [job("a", size=300_000) for _ in range(8)]
    for each in rest:
        lanes.put(each)
    assert lanes.take() == [huge]
    taken = []
    while len(lanes):
        batch = lanes.take()
        assert sum(size_of(each) for each in batch) <= BYTES_MAX
        taken += batch
    assert taken == rest


def test_a_flood_of_large_jobs_does_not_starve_lane_1() -> None:
    """However large lane 0's jobs are, each batch takes something of lane 1."""
    lanes = Lanes()
    for _ in range(10):
        lanes.put(job("a", size=400_000))
    lanes.put(job("b", lane=1, size=1000))
    assert 1 in [each.lane for each in lanes.take()]


def test_alike_statements_share_a_call() -> None:
    """Marked statements of many jobs go in one call each; others keep their place."""
    update, put = Many("UPDATE"), Many("PUT")
    turns = [job(update, put) for _ in range(50)]
    assert [(group.sql, len(group.params)) for group in grouped(turns)] == [("UPDATE", 50), ("PUT", 50)]
    mixed = [*turns, job("PLAIN"), *turns]
    assert [len(group.params) for group in grouped(mixed)] == [50, 50, 1, 50, 50]


SQLS = st.sampled_from([Many("A"), Many("B"), Many("C"), "P", "Q"])
GUARD = Guard("G")


@given(st.lists(st.lists(SQLS, min_size=1, max_size=5), max_size=20))
def test_no_job_sees_its_own_statements_in_another_order(shapes: list[list[str]]) -> None:
    """Whatever is grouped: each job's own order holds, and plain SQL keeps its place among all jobs."""
    jobs = [
        Job([(sql, [number, place], 1) for place, sql in enumerate(shape)], lambda outcome, detail: None)
        for number, shape in enumerate(shapes)
    ]
    run = [(number, place) for group in grouped(jobs) for number, place in group.params]
    assert sorted(run) == [(number, place) for number, shape in enumerate(shapes) for place in range(len(shape))]
    for number, shape in enumerate(shapes):
        assert [place for n, place in run if n == number] == list(range(len(shape)))
    for at, (number, place) in enumerate(run):
        if not isinstance(shapes[number][place], Many):
            assert all(n <= number for n, _ in run[:at])
            assert all(n >= number for n, _ in run[at:])


@given(st.lists(st.tuples(st.lists(SQLS, min_size=1, max_size=5), st.booleans()), max_size=20))
def test_a_guarded_job_comes_behind_all_before_it(shapes: list[tuple[list[str], bool]]) -> None:
    """Whatever is grouped: nothing of a job that begins with a guard runs before a statement of an earlier job."""
    made = [[GUARD, *shape] if guarded else shape for shape, guarded in shapes]
    jobs = [Job([(sql, [number], 1) for sql in shape], lambda *_: None) for number, shape in enumerate(made)]
    run = [params[0] for group in grouped(jobs) for params in group.params]
    for number, (_, guarded) in enumerate(shapes):
        if guarded:
            first = run.index(number)
            assert all(run.index(n) < first for n in range(number))
            last_before = max((at for at, n in enumerate(run) if n < number), default=-1)
            assert last_before < first


@given(
    st.lists(
        st.tuples(st.lists(SQLS, min_size=1, max_size=5), st.none() | st.integers(0, 20), st.booleans()), max_size=20
    )
)
def test_a_guarded_job_comes_behind_what_it_builds_on(shapes: list[tuple[list[str], int | None, bool]]) -> None:
    """In whichever lane they are, nothing of it runs before a statement of those jobs, and its own order holds."""
    lanes = Lanes()
    for number, (shape, behind, low) in enumerate(shapes):
        rows: list[tuple[str, tuple[int, int], int]] = [(sql, (number, at), 1) for at, sql in enumerate(shape, start=1)]
        if behind is not None:
            behind = min(behind, number - 1)  # it was submitted later
            lane = int(any(it[2] for it in shapes[: behind + 1])) if behind >= 0 else 0  # of what it waits for
            lanes.put(Job([(GUARD, Behind.of((number, 0), behind), 1), *rows], lambda *_: None, lane, number=number))
        else:
            lanes.put(Job(rows, lambda *_: None, int(low), number=number))
    jobs = lanes.take() if shapes else []
    at_number = {it.number: at for at, it in enumerate(jobs)}
    run = [(params[0], params[1]) for group in grouped(jobs) for params in group.params]
    for number, (_, behind, _low) in enumerate(shapes):
        own = [place for n, place in run if n == number]
        assert own == sorted(own)
        if behind is not None:
            before = [n for n in range(min(behind, number - 1) + 1) if at_number[n] < at_number[number]]
            assert all(run.index((number, 0)) > at for at, (n, _) in enumerate(run) if n in before)


def test_turns_that_build_on_an_earlier_batch_share_their_calls() -> None:
    """Guards included; those that build on one of this batch are behind it, and share theirs."""
    put, end = Many("PUT"), Many("END")

    def turn(number: int, behind: int) -> Job:
        return Job([(GUARD, Behind.of([number], behind), 1), (end, [number], 1)], lambda *_: None, number=number)

    before = [turn(number, 5) for number in range(10, 20)]
    puts = [Job([(put, [number], 1)], lambda *_: None, number=number) for number in range(20, 30)]
    after = [turn(number, 29) for number in range(30, 40)]
    found = [(it.sql, len(it.params)) for it in grouped([*before, *puts, *after])]
    assert found == [("G", 10), ("END", 10), ("PUT", 10), ("G", 10), ("END", 10)]


def test_a_timer_that_is_cancelled_does_not_fire_behind_that() -> None:
    """Whichever calls are shared: what takes a firing away stands behind each firing that was given before."""

    def firing(number: int, over: str) -> Job:
        return Job([(over, [number], 1), (sql.PUT, [number], 1)], lambda *_: None, lane=1, number=number)

    def cancelling(number: int, behind: int) -> Job:
        guard = (handing.IN_INBOX, Behind.of([number], behind), 1)
        return Job(
            [guard, (sql.TIMER_CANCEL, [number], -1), (sql.DISCARD_FIRINGS, [number], -1)],
            lambda *_: None,
            1,
            number=number,
        )

    jobs = [
        Job([(sql.PUT, [1], 1)], lambda *_: None, lane=1, number=1),
        firing(2, sql.TIMER_ADVANCE),
        cancelling(3, 1),
        firing(4, sql.TIMER_END),
        firing(5, sql.TIMER_ADVANCE),
        cancelling(6, 1),
    ]
    run = [(group.sql, params[0]) for group in grouped(jobs) for params in group.params]
    assert run.index((sql.PUT, 5)) < run.index((sql.DISCARD_FIRINGS, 6))
