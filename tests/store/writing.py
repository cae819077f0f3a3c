"""A process that writes until it is killed, and says what was acknowledged; one that meets a full disk."""

import resource
import sys
import threading
from functools import partial

from controlplane.store.committer import Committer, Job, Many

PUT = Many("INSERT INTO meta (key, value) VALUES (?, ?)")
MARK = "INSERT INTO event (type, time, kind, namespace, name, data) VALUES ('x.y', 1, 'Meta', 'default', ?, '{}')"


def write_for_ever(url: str, prefix: str) -> None:
    """Prints each key after it was acknowledged; 64 jobs in flight, each of two rows."""
    committer = Committer(url)
    committer.start()
    window = threading.Semaphore(64)
    number = 0

    def told(key: str, outcome: str, _: str) -> None:
        if outcome == "ok":
            sys.stdout.write(key + "\n")
            sys.stdout.flush()
        window.release()

    while True:
        window.acquire()
        key, number = f"{prefix}{number}", number + 1
        committer.submit(Job([(PUT, [key, "v"], 1), (MARK, [key], 1)], partial(told, key)))


def fill_the_disk(url: str) -> None:
    """Prints the outcome of jobs while files can not grow, and of one after they can again."""
    committer = Committer(url)
    committer.start()
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, hard))
    for number in range(60):
        print(f"k{number}", *submit(committer, f"k{number}", "x" * 100_000), flush=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    print("after", *submit(committer, "after", "v"), flush=True)
    committer.stop()


def submit(committer: Committer, key: str, value: str) -> tuple[str, str]:
    told = threading.Event()
    answer: list[tuple[str, str]] = []

    def done(outcome: str, detail: str) -> None:
        answer.append((outcome, detail))
        told.set()

    committer.submit(Job([(PUT, [key, value], 1)], done))
    assert told.wait(30)
    return answer[0]


if __name__ == "__main__":
    if sys.argv[1] == "for_ever":
        write_for_ever(*sys.argv[2:])
    else:
        fill_the_disk(*sys.argv[2:])
