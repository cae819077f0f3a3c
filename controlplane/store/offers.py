"""Statements about what far sides offer, and what of it was accepted."""

from controlplane.store.batching import Many

KNOWN = "SELECT tool, digest, gone_at IS NOT NULL FROM offer WHERE connection = ?"
ONE = """SELECT digest, body, gone_at IS NOT NULL, accepted, accepted_body, roles FROM offer
WHERE connection = ? AND tool = ?"""
LIVE = "SELECT generation FROM resource WHERE uid = ? AND deleted_at IS NULL"
# Of a connection that was deleted meanwhile nothing is kept.
SEEN = Many(
    "INSERT INTO offer (connection, tool, digest, body, seen_at)"
    " SELECT uid, ?, ?, ?, ? FROM resource WHERE uid = ? AND deleted_at IS NULL"
    " ON CONFLICT (connection, tool) DO UPDATE SET digest = excluded.digest, body = excluded.body,"
    " seen_at = excluded.seen_at, gone_at = NULL"
)
GONE = Many("UPDATE offer SET gone_at = ? WHERE connection = ? AND tool = ? AND gone_at IS NULL")
FORGOTTEN = Many("DELETE FROM offer WHERE connection = ? AND gone_at IS NOT NULL AND accepted IS NULL")
ACCEPT = """UPDATE offer SET accepted = digest, accepted_body = body, roles = ?, accepted_by = ?, accepted_at = ?
WHERE connection = ? AND tool = ? AND digest = ? AND gone_at IS NULL"""
FORGET = "DELETE FROM offer WHERE connection = ?"
