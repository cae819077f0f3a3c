"""Statements that planes send often: the gate knows them again by their text, so that PostgreSQL prepares each once.

A unit of a plane comes as text. What a database plans anew each time costs it some 0.1 ms more; what is written
once an hour may. A text that is not here is as well written, and no less exactly.
"""

from controlplane.store import members
from controlplane.store.batching import Fixed
from controlplane.store.unit import EVENT

_KEPT: dict[str, Fixed] = {
    it: it for it in (EVENT, members.REGISTER, members.RENEW, members.UNREGISTERED_EVENT, members.UNREGISTER)
}


def kept(sql: str) -> str:
    """The same text, known as fixed where it is."""
    return _KEPT.get(sql, sql)
