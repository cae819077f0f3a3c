"""Ephemeral channels that are empty and unused vanish: nothing of them is left, but how far positions have come.

Empty is a channel without members and without messages, which its retention takes; unused, one that nobody made,
joined or left for `UNUSED_S`. One that a spec watches stays, though its agent may not have been set up yet. Of a
channel that was declared, the tombstone of its name stays, as of any resource; of one that only its use had made,
not even that. Whatever uses it at that very moment comes first, or makes it anew.
"""

from typing import Any

from sqlalchemy import text
from sqlmodel import Session

from controlplane.operations.snapshot import watchers
from controlplane.store import channels as sql
from controlplane.store.store import Store
from controlplane.store.unit import Unit
from schemas.principal import PLANE

UNUSED_S = 60.0
AT_ONCE = 200
_UNUSED = text(sql.UNUSED.replace("?", ":before", 1).replace("?", ":after", 1).replace("?", ":many", 1))


async def sweep(store: Store, now: float, unused_s: float = UNUSED_S) -> int:
    """Take away what vanishes; answers how many channels."""
    after, gone, before = "", 0, now - unused_s
    while True:
        found = await store.read(lambda session, after=after: _unused(session, before, after))  # type: ignore[misc]
        for uid, namespace, name, watched in found:
            if not watched:
                gone += await store.write(_vanish(uid, namespace, name, before, now))
        if len(found) < AT_ONCE:
            return gone
        after = found[-1][0]


def _unused(session: Session, before: float, after: str) -> list[tuple[str, str, str, bool]]:
    given: dict[str, Any] = {"before": before, "after": after, "many": AT_ONCE}
    rows = session.connection().execute(_UNUSED, given).all()
    return [(uid, namespace, name, bool(watchers(session, namespace, name))) for uid, namespace, name in rows]


def _vanish(uid: str, namespace: str, name: str, before: float, now: float) -> Unit:
    """All of it in one unit, if it is still empty and unused."""
    unit = Unit().raw(sql.VANISH, [now, now, uid, before], expect=1)
    unit.raw(sql.CAME_TO, [sql.place_of(namespace, name), uid])
    unit.raw(sql.FORGET_MEMBERS_OF, [uid]).raw(sql.VANISH_RUN, [uid], expect=1)
    unit.raw(sql.VANISH_LABELS, [namespace, name]).raw(sql.VANISH_WHOLLY, [uid])
    data, by = {"uid": uid, "unused": True}, PLANE.name
    return unit.event(
        "resource.deleted", kind="Channel", namespace=namespace, name=name, now=now, principal=by, data=data
    )
