"""What a peer measured, or why it did not, as cells beside ours."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.given import POSTGRES, Given
from benchmarks.peers import fetched
from benchmarks.timing import Latency, quantiles

FAILED: list[str] = []  # what ran and broke: told at the end, with exit code 1


@dataclass(frozen=True)
class Found:
    """Figures of one peer; without them, `why`."""

    name: str
    figures: dict[str, Any]
    why: str = ""

    def latency(self, what: str, key: object) -> Latency | None:
        return quantiles(self.figures[what][str(key)]) if self.figures else None

    def cells(self, what: str, key: object, ours_p50_ms: float) -> list[object]:
        """Its latency, and how many times ours that is at p50."""
        theirs = self.latency(what, key)
        return [self.why, ""] if theirs is None else [theirs, f"{theirs.p50_ms / ours_p50_ms:.1f}"]

    def rate(self, key: object) -> str:
        """How many a second; `-` where it came to none."""
        found = self.figures.get("rate", {}).get(str(key))
        return self.why or ("-" if found is None else f"{found:.0f}")


def measured(peer: str, given: Given, what: str, seconds: float, samples: int) -> Found:
    """`restate`, `nats`, or DBOS on the named database."""
    name = {"restate": "Restate", "nats": "NATS"}.get(peer, f"DBOS on {peer}")
    try:
        return Found(name, _figures(peer, given, what, seconds, samples))
    except fetched.AbsentError as absent:
        return Found(name, {}, str(absent))
    except Exception as error:  # noqa: BLE001 - ours is measured all the same
        FAILED.append(f"{name}: {error}")
        return Found(name, {}, "it failed")  # what it said is in the row of the run: it speaks of this machine


def _figures(peer: str, given: Given, what: str, seconds: float, samples: int) -> dict[str, Any]:
    if peer == "restate":
        return fetched.restate(what, seconds, samples)
    if peer == "nats":
        return fetched.nats(what, seconds, samples)
    if peer != POSTGRES:
        return fetched.dbos_on_sqlite()(what, seconds, samples)
    if fetched.absent():
        raise fetched.AbsentError
    with given.empty_postgres() as url:
        return fetched.dbos(lambda _: url)(what, seconds, samples)


def notes(peers: Sequence[Found]) -> str:
    """The versions, and what is not alike."""
    versions = ", ".join(dict.fromkeys(str(it.figures["version"]) for it in peers if it.figures))
    said = "Ratios are the peer's p50 over ours. Peers run as they are delivered; what is not alike is told in "
    said += "[decision 59](decisions/0059-peers-are-measured-beside-ours.md)."
    return f"{said}{f' Versions: {versions}.' if versions else ''}\n"
