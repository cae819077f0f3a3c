"""Tombstones of agents that agents had spawned, which nothing speaks of any more. As in `statements`.

A name that a change has ever wanted keeps its tombstone for good: the change can be reverted, and what is proposed for
the name again must be another plan. So do the places of a fleet, which come again. What agents spawn is named by
nobody but its turns, its running side and its children; when those are gone, the name is as if it had never been. One
with labels stays for as long as what it used: budgets of these labels count that.
No index leads to tombstones by age: they are few among what lives, and are met on a walk along the names.
"""

from typing import NamedTuple

from sqlalchemy import delete, text
from sqlmodel import Session, col

from controlplane.store.tables import ResourceRow
from controlplane.store.unit import Unit

NAMES = """SELECT r.namespace, r.name, r.uid, CASE WHEN r.deleted_at IS NULL OR r.deleted_at >= :before
OR r.ordinal IS NOT NULL OR r.template IS NOT NULL THEN 0
WHEN (SELECT a.uid FROM agent a WHERE a.uid = r.uid) IS NOT NULL THEN 0
WHEN (SELECT t.turn_id FROM turn t WHERE t.agent = r.uid LIMIT 1) IS NOT NULL THEN 0
WHEN (SELECT c.uid FROM resource c WHERE c.owner = r.uid AND c.deleted_at IS NULL LIMIT 1) IS NOT NULL THEN 0
WHEN (SELECT h.change_id FROM change_target h WHERE h.kind = 'Agent' AND h.namespace = r.namespace
AND h.name = r.name LIMIT 1) IS NOT NULL THEN 0
WHEN r.labels <> '{}' AND ((SELECT u.hour FROM usage u WHERE u.namespace = r.namespace AND u.agent = r.name LIMIT 1)
IS NOT NULL OR (SELECT v.hour FROM usage_common v WHERE v.namespace = r.namespace AND v.agent = r.name LIMIT 1)
IS NOT NULL) THEN 0 ELSE 1 END AS forgotten
FROM resource r WHERE r.kind = 'Agent' AND (r.namespace, r.name) > (:namespace, :name)
ORDER BY r.namespace, r.name LIMIT :many"""


class Named(NamedTuple):
    """A name of agents, and whether it is a tombstone that nothing speaks of."""

    namespace: str
    name: str
    uid: str
    forgotten: bool


def names(session: Session, after: tuple[str, str], before: float, many: int) -> list[Named]:
    """The next names, behind one; forgotten are those that were deleted before that moment."""
    given = {"namespace": after[0], "name": after[1], "before": before, "many": many}
    rows = session.connection().execute(text(NAMES), given)
    return [Named(namespace, name, uid, bool(forgotten)) for namespace, name, uid, forgotten in rows]


def forget(uids: list[str]) -> Unit:
    """Take them away; whoever has the name by now is of another uid."""
    of = (col(ResourceRow.uid).in_(uids), col(ResourceRow.deleted_at).is_not(None))
    return Unit().run(delete(ResourceRow).where(*of))
