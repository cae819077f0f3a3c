"""Statements of invitations, the same on both databases. One is good for its very target, by uid."""

OPENED = (
    "SELECT 1 FROM invitation i JOIN resource r ON r.uid = i.uid WHERE i.to_namespace = ? AND i.namespace = ?"
    " AND i.name = ? AND i.kind = ? AND (i.to_agent = '' OR i.to_agent = ?) AND i.effects LIKE ? AND i.expires_at > ?"
    " AND i.revoked_at IS NULL AND r.deleted_at IS NULL LIMIT 1"
)
INVITE = (
    "INSERT INTO invitation (invitation_id, kind, namespace, name, uid, to_namespace, to_agent, effects, principal,"
    " created_at, expires_at) SELECT ?, kind, namespace, name, uid, ?, ?, ?, ?, ?, ? FROM resource"
    " WHERE kind = ? AND namespace = ? AND name = ? AND deleted_at IS NULL"
)
REVOKE = "UPDATE invitation SET revoked_at = ? WHERE invitation_id = ? AND revoked_at IS NULL"
INVITATIONS = (
    "DELETE FROM invitation WHERE invitation_id IN (SELECT invitation_id FROM invitation WHERE expires_at < ?"
    " ORDER BY expires_at LIMIT ?)"
)
EFFECTS = {"send": "send", "ask": "ask", "request": "ask", "publish": "publish"}  # of entries, by their kind


def pattern(effect: str) -> str:
    """What the effects of an invitation hold that is good for this one."""
    return f"%,{effect},%"
