"""What happened to the installation lately, in words: what died and came back, a full store, a moved clock.

A view over the feedback log. It looks at the newest records of the installation, of which there are few,
and never further back, so that it costs the same however long the log is.
"""

from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import select
from sqlmodel import Session, col

from controlplane.store.tables import EventRow
from schemas.principal import Principal
from schemas.records import Incident

LOOKED_AT, TOLD = 200, 10
WORDS = {
    "plane.started": "The plane was started; changes went on where they were.",
    "gate.started": "The gate was started, as process {pid}; agents went on from what was committed.",
    "ray.started": "Ray was started, as process {pid}; hosts of before were made again.",
    "placer.started": "The placer was started, as process {pid}.",
    "host.lost": "Host {host} was lost: {reason}. Its agents go on at others.",
    "storage.recovered": "The store could not be written since {since}: {cause}. It can be again.",
    "clock.moved": "The machine's clock was moved by {by_s:+.0f} s.",
}
DEFAULTS = {"reason": "it had ended when a gate was started"}


def lately(session: Session, principal: Principal) -> list[Incident]:
    """The newest first; records of the installation are read by who reaches all namespaces."""
    if "*" not in principal.namespaces:
        return []
    event = (col(EventRow.cursor), col(EventRow.type), col(EventRow.time), col(EventRow.name), col(EventRow.data))
    newest = select(*event).where(col(EventRow.namespace) == "").order_by(event[0].desc()).limit(LOOKED_AT).subquery()
    kinds = select(newest).where(newest.c.type.in_(WORDS)).order_by(newest.c.cursor.desc()).limit(TOLD)
    return [_incident(*row) for row in session.execute(kinds)]


def _incident(_cursor: int, kind: str, at: float, name: str, data: str) -> Incident:
    about: dict[str, Any] = {**DEFAULTS, "host": name, **orjson.loads(data)}
    return Incident(type=kind, time=datetime.fromtimestamp(at, UTC), text=WORDS[kind].format(**about))
