"""Which jobs share a transaction, and which statements a call."""

from hypothesis import given
from hypothesis import strategies as st

from controlplane.store.batching import BYTES_MAX, JOBS_MAX, LANE_1_SHARE, Guard, Job, Lanes, Many, grouped, size_of


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
