"""Statements of members from elsewhere, the same on both databases. A member is one row: nothing of it can be left."""

from controlplane.store.batching import Fixed

REGISTER = Fixed(
    "INSERT INTO member (namespace, name, principal, labels, purpose, capabilities, address, meaning, since,"
    " expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (namespace, name) DO UPDATE SET principal = excluded.principal,"
    " labels = excluded.labels, purpose = excluded.purpose, capabilities = excluded.capabilities,"
    " address = excluded.address, meaning = excluded.meaning, expires_at = excluded.expires_at,"
    " since = CASE WHEN member.expires_at > excluded.since THEN member.since ELSE excluded.since END"
)
RENEW = Fixed("UPDATE member SET expires_at = ? WHERE namespace = ? AND name = ? AND since = ? AND expires_at > ?")
_ONE = "FROM member WHERE namespace = ? AND name = ? AND expires_at > ?"
UNREGISTERED_EVENT = Fixed(  # first: it speaks of what is there
    "INSERT INTO event (type, time, kind, namespace, name, principal, data)"
    f" SELECT 'member.unregistered', ?, 'Member', namespace, name, ?, '{{}}' {_ONE}"
)
UNREGISTER = Fixed(f"DELETE {_ONE}")
_OVER = "FROM member WHERE expires_at <= ? ORDER BY expires_at, namespace, name LIMIT ?"
EXPIRED_EVENT = (
    "INSERT INTO event (type, time, kind, namespace, name, data) SELECT 'member.expired', ?, 'Member', namespace,"
    f" name, '{{}}' {_OVER}"
)
EXPIRE = f"DELETE FROM member WHERE (namespace, name) IN (SELECT namespace, name {_OVER})"  # noqa: S608
