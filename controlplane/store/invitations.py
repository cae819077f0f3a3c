"""Statements of invitations, the same on both databases. One is good for its very target, by uid."""

OPENED = (  # the one that lasts longest
    "SELECT i.invitation_id FROM invitation i JOIN resource r ON r.uid = i.uid WHERE i.to_namespace = ?"
    " AND i.namespace = ? AND i.name = ? AND i.kind = ? AND (i.to_agent = '' OR i.to_agent = ?) AND i.effects LIKE ?"
    " AND i.expires_at > ? AND i.revoked_at IS NULL AND r.deleted_at IS NULL"
    " ORDER BY i.expires_at DESC, i.invitation_id LIMIT 1"
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
STANDS = (  # at the head of what an operator does by it: it is good still, and for this very channel
    "UPDATE invitation SET created_at = created_at WHERE invitation_id = ? AND revoked_at IS NULL AND expires_at > ?"
    " AND uid = (SELECT c.uid FROM channel c WHERE c.namespace = ? AND c.name = ?)"
)

# Guests: members of a channel that are agents of another namespace, as long as an invitation to read stands

INVITED_BY = (
    "UPDATE subscription SET invitation = ? WHERE agent = ?"
    " AND channel = (SELECT c.uid FROM channel c WHERE c.namespace = ? AND c.name = ?)"
)
_STANDING = "i.invitation_id = {}.invitation AND i.revoked_at IS NULL AND i.expires_at > ?"
_EXISTS = "EXISTS (SELECT 1 FROM invitation i WHERE {})"
_STANDS, _ITS_STANDS = (_EXISTS.format(_STANDING.format(it)) for it in ("subscription", "s"))
_GUEST = "UPDATE subscription SET invitation = invitation WHERE channel = ? AND agent = ? AND invitation IS NOT NULL"
STILL_GUEST = f"{_GUEST} AND {_STANDS}"  # at the head of what gives a guest anything
NO_MORE_GUEST = f"{_GUEST} AND NOT {_STANDS}"  # at the head of what ends it
IS_GUEST = f"SELECT 1 FROM subscription s WHERE s.channel = ? AND s.agent = ? AND {_ITS_STANDS}"  # noqa: S608
OVER = (  # guests whose invitation is no more, the first so many
    "SELECT s.channel, s.agent, s.invitation, c.namespace, c.name, a.namespace, a.name FROM subscription s"  # noqa: S608
    " JOIN channel c ON c.uid = s.channel JOIN agent a ON a.uid = s.agent"
    f" WHERE s.invitation IS NOT NULL AND NOT {_ITS_STANDS} ORDER BY s.invitation LIMIT ?"
)
IS_MEMBER = (
    "SELECT 1 FROM subscription s JOIN channel c ON c.uid = s.channel WHERE c.namespace = ? AND c.name = ?"
    " AND s.agent = ?"
)
# Of entries, by their kind
EFFECTS = {"send": "send", "ask": "ask", "request": "ask", "publish": "publish", "join": "read"}


def pattern(effect: str) -> str:
    """What the effects of an invitation hold that is good for this one."""
    return f"%,{effect},%"
