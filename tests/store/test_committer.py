"""The one writer through faults: killed, cut off, out of space, stopped."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from sqlmodel import Session, select

from controlplane.store import committer as committing
from controlplane.store.committer import Committer, Delivery, Job, Many
from controlplane.store.engine import reading_engine
from controlplane.store.tables import EventRow, Meta
from tests.postgres import Postgres
from tests.store.writing import MARK, PUT, submit

WRITING = [sys.executable, "-m", "tests.store.writing"]


def stored(url: str) -> set[str]:
    engine = reading_engine(url)
    with Session(engine) as session:
        found = set(session.exec(select(Meta.key).where(Meta.key != "writer")).all())
        events = set(session.exec(select(EventRow.name)).all())
    engine.dispose()
    assert events in (set(), found), "a unit is there in half"
    return found


@pytest.fixture
def committer(database_url: str) -> Iterator[Committer]:
    thread = Committer(database_url)
    thread.start()
    yield thread
    thread.stop()


def test_kill_9_loses_nothing_acknowledged(database_url: str) -> None:
    """Killed in the middle of writing, five times: each acknowledged job is there, and none in half."""
    acknowledged: set[str] = set()
    for life in range(5):
        command = [*WRITING, "for_ever", database_url, f"life{life}-"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        acknowledged |= {process.stdout.readline().strip() for _ in range(300 + 40 * life)}
        process.kill()
        acknowledged |= set(process.stdout.read().split("\n")[:-1])  # the last line may be cut
        process.wait()
        assert acknowledged <= stored(database_url)


def test_a_bad_job_among_marked_ones_fails_alone(database_url: str) -> None:
    """One of 300 that go in shared calls breaks a key: it alone is an error, in one delivery a batch."""
    deliveries: list[Delivery] = []
    thread = Committer(database_url, deliveries.append)
    jobs = [
        Job([(PUT, [f"k{min(n, 250)}", "v"], 1), (MARK, [f"k{n}"], 1)], lambda outcome, detail: None)
        for n in range(252)
    ]
    for job in jobs:
        thread.submit(job)
    thread.start()
    thread.stop()
    outcomes = {id(job): (outcome, detail) for delivery in deliveries for job, outcome, detail in delivery}
    assert [outcomes[id(job)][0] for job in jobs] == ["ok"] * 251 + ["error"]
    assert outcomes[id(jobs[251])][1].startswith("INTERNAL: ")
    assert len(deliveries) == 1
    assert stored(database_url) == {f"k{n}" for n in range(251)}


def test_a_marked_statement_that_misses_is_a_conflict_of_its_job(committer: Committer) -> None:
    """Counts of a shared call are told apart by doing its jobs again."""
    swap = Many("UPDATE meta SET value = ? WHERE key = ? AND value = ?")
    assert submit(committer, "a", "1") == ("ok", "")
    told: list[str] = []
    everyone = threading.Event()

    def done(outcome: str, _: str) -> None:
        told.append(outcome)
        if len(told) == 20:
            everyone.set()

    for number in range(20):
        committer.submit(Job([(swap, [f"n{number}", "a", "1"], 1)], done))
    assert everyone.wait(10)
    assert sorted(told) == ["conflict"] * 19 + ["ok"]


def test_the_writer_outlives_a_restart_of_the_database(
    postgres: Postgres, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs across a crash of the server: each outcome told is true, and writing goes on by itself."""
    monkeypatch.setattr(committing, "AWAY_S_MAX", 60.0)  # on a busy machine the server takes its time to come back
    thread = Committer(postgresql_url)
    thread.start()
    outcomes: dict[str, str] = {}
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            outcome, detail = submit(thread, f"k{number}", "v")
            outcomes[f"k{number}"] = outcome + detail

    writing = threading.Thread(target=write)
    writing.start()
    for mode in ("immediate", "fast"):
        time.sleep(0.2)  # some writes before
        postgres.restart(mode)
        before = len(outcomes)
        deadline = time.monotonic() + 10
        while len(outcomes) < before + 20 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(outcomes) >= before + 20
    stop.set()
    writing.join()
    thread.stop()
    assert set(outcomes.values()) == {"ok"}
    assert stored(postgresql_url) == set(outcomes)


def test_a_database_that_stays_away_is_told(
    postgres: Postgres, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a bound the job is an error that says so, nothing was written, and the writer lives."""
    monkeypatch.setattr(committing, "AWAY_S_MAX", 0.5)
    thread = Committer(postgresql_url)
    thread.start()
    assert submit(thread, "a", "v") == ("ok", "")
    postgres.stop_server()
    try:
        outcome, detail = submit(thread, "b", "v")
    finally:
        postgres.start_server()
    assert (outcome, detail.split(":")[0]) == ("error", "NOT_READY")
    assert submit(thread, "c", "v")[0] == "ok"
    thread.stop()
    assert stored(postgresql_url) == {"a", "c"}


def test_a_full_disk_is_said_and_outlived(sqlite_url: str) -> None:
    """What does not fit is an error that says so; what was told as stored is; with space, writing goes on."""
    ended = subprocess.run([*WRITING, "full", sqlite_url], capture_output=True, text=True, timeout=60, check=True)
    outcomes = dict(line.split(" ", 1) for line in ended.stdout.splitlines())
    assert {text.split(":")[0] for text in outcomes.values()} == {"ok ", "error STORAGE_FULL"}
    assert outcomes["after"].strip() == "ok"
    assert stored(sqlite_url) == {key for key, text in outcomes.items() if text.strip() == "ok"}


def test_what_is_submitted_after_the_end_is_refused(committer: Committer) -> None:
    """Nobody waits for ever for a writer that has ended."""
    committer.stop()
    assert submit(committer, "a", "v") == ("error", "NOT_READY: the writer has ended")


def test_who_has_the_writer_hears_that_it_died(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what no job can cause: nobody is told that its job is done, and whoever comes later is refused."""
    died = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    thread = Committer(sqlite_url, died=died.set)
    monkeypatch.setattr(thread, "_settle", None)
    thread.start()
    told: list[str] = []
    thread.submit(Job([(PUT, ["a", "v"], 1)], lambda outcome, _detail: told.append(outcome)))
    assert died.wait(10)
    thread.join(10)
    assert submit(thread, "b", "v") == ("error", "NOT_READY: the writer has ended")
    assert (told, stored(sqlite_url)) == ([], set())


def test_a_patient_job_shares_the_transaction_of_what_follows(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is kept until something comes that is not, or a moment is over, or the writer ends."""
    deliveries: list[list[str]] = []
    told = threading.Semaphore(0)

    def deliver(delivery: Delivery) -> None:
        deliveries.append([str(job.rows[0][1][0]) for job, outcome, _ in delivery if outcome == "ok" and job.rows])
        told.release()

    def put(key: str, *, patient: bool) -> None:
        thread.submit(Job([(PUT, [key, "v"], 1), (MARK, [key], 1)], lambda outcome, detail: None, patient=patient))

    thread = Committer(sqlite_url, deliver)
    thread.start()
    put("alone", patient=True)
    assert told.acquire(timeout=30)
    monkeypatch.setattr(committing, "PATIENCE_S", 3600.0)
    put("first", patient=True)
    assert not told.acquire(timeout=0.2)
    put("second", patient=True)
    put("third", patient=False)
    assert told.acquire(timeout=30)
    put("waited for", patient=True)
    thread.hurry()
    assert told.acquire(timeout=30)
    put("last", patient=True)
    thread.stop()
    assert deliveries == [["alone"], ["first", "second", "third"], ["waited for"], ["last"]]
    assert stored(sqlite_url) == {"alone", "first", "second", "third", "waited for", "last"}


def test_hurrying_a_writer_that_has_nothing_changes_nothing(committer: Committer) -> None:
    """What was patient may have gone already."""
    for n in range(3):
        committer.hurry()
        assert submit(committer, f"k{n}", "v") == ("ok", "")
