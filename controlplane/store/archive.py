"""What retention is about to take away, written down first: a line of JSON a turn, in one file a day.

A line is there, on the disk, before its turn goes. A turn whose removal was cut short comes again under
its id; a line that was cut short is taken off before the next is written, and its turn comes again too.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from sqlmodel import Session, SQLModel, col, select

from controlplane.resources.problems import refuse
from controlplane.store.tables import AwaitRow, JournalRow, TurnRow

TAIL_BYTES = 65_536
RETRY_S = 60.0


@dataclass(frozen=True)
class Archive:
    """A folder of `turns-YYYY-MM-DD.jsonl`, the days being those of the archiving."""

    folder: Path

    def append(self, records: Sequence[dict[str, Any]], now: float) -> None:
        """All of the records, or a Problem, and then their turns stay."""
        path = self.folder / f"turns-{datetime.fromtimestamp(now, UTC):%Y-%m-%d}.jsonl"
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "r+b") as file:
                file.truncate(_whole(file))
                file.seek(0, os.SEEK_END)
                file.writelines(orjson.dumps(it) + b"\n" for it in records)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            detail = f"turns that are too old can not be archived, and stay: {error}"
            raise refuse("STORAGE_FULL", detail, retry_after_s=RETRY_S, cause=str(error)) from error


def _whole(file: Any) -> int:
    """Where the last whole line ends."""
    at: int = file.seek(0, os.SEEK_END)
    while at > 0:
        start = max(0, at - TAIL_BYTES)
        file.seek(start)
        found = file.read(at - start).rfind(b"\n")
        if found >= 0:
            return start + int(found) + 1
        at = start
    return 0


def records(session: Session, turns: Sequence[str]) -> list[dict[str, Any]]:
    """Turns with their journals and awaits, as the tables have them."""
    found: dict[str, dict[str, Any]] = {
        row.turn_id: row.model_dump() | {"journal": [], "awaits": []}
        for row in session.exec(select(TurnRow).where(col(TurnRow.turn_id).in_(turns)))
    }
    entries = select(JournalRow).where(col(JournalRow.turn_id).in_(turns)).order_by(col(JournalRow.position))
    _under(found, "journal", session.exec(entries).all())
    _under(found, "awaits", session.exec(select(AwaitRow).where(col(AwaitRow.turn_id).in_(turns))).all())
    return [found[it] for it in turns if it in found]


def _under(found: dict[str, dict[str, Any]], part: str, rows: Sequence[SQLModel]) -> None:
    for row in rows:
        body = row.model_dump()
        found[body["turn_id"]][part].append(body)
