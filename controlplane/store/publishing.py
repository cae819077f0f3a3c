"""A publication that takes its members along. As in `statements`: before the position is passed.

Who has everything before it, and room in its inbox, has it in the same unit; whoever lags gets it by a delivery, and so
do guests, whose invitation is looked at then, and routes that read again.
"""

from controlplane.store.batching import Fixed

FEW_WAIT = 255  # with more messages in its inbox, a member lags until those are fewer
AT_ONCE = 256  # so many members in one unit; the others follow

_PLAIN = (  # waits for no more, is no guest, and reads nothing again
    "{0}.debounce_s = 0 AND {0}.batch_max = 1 AND {0}.invitation IS NULL"
    " AND NOT EXISTS (SELECT 1 FROM replay r WHERE r.agent = {0}.agent AND r.ended_at IS NULL)"
)
TO_MEMBERS = Fixed(
    "INSERT INTO inbox (agent, message_id, trigger, body, accepted_at, attempts, key, rank, attempts_max)"  # noqa: S608
    " SELECT s.agent, m.message_id, 'message', m.body, ?, 0, m.key, m.rank, c.attempts_max"
    " FROM channel c JOIN channel_message m ON m.channel = c.uid AND m.position = c.next_position"
    " JOIN subscription s ON s.channel = c.uid AND s.position = c.next_position - 1"
    " WHERE c.namespace = ? AND c.name = ? AND c.mode = 'broadcast'"
    f" AND {_PLAIN.format('s')} AND NOT EXISTS (SELECT 1 FROM inbox i WHERE i.agent = s.agent LIMIT 1 OFFSET ?)"
    f" LIMIT {AT_ONCE} ON CONFLICT (agent, message_id) DO NOTHING"
)
MEMBERS_FOLLOW = Fixed(
    "UPDATE subscription SET position = position + 1 WHERE (channel, position) = (SELECT c.uid, c.next_position - 1"  # noqa: S608
    " FROM channel c WHERE c.namespace = ? AND c.name = ? AND c.mode = 'broadcast')"
    f" AND {_PLAIN.format('subscription')} AND EXISTS (SELECT 1 FROM channel_message m JOIN inbox i"
    " ON i.agent = subscription.agent AND i.message_id = m.message_id"
    " WHERE m.channel = subscription.channel AND m.position = subscription.position + 1)"
)
PUBLISHED = (  # a channel, and the position of a message of it
    "SELECT c.uid, c.mode, m.position FROM channel c LEFT JOIN channel_message m"
    " ON m.channel = c.uid AND m.message_id = ? WHERE c.namespace = ? AND c.name = ?"
)
REACHED = f"SELECT s.agent FROM subscription s WHERE s.channel = ? AND s.position >= ? AND {_PLAIN.format('s')}"  # noqa: S608
READY = (  # whoever has all that is committed: a few
    f"SELECT s.agent FROM subscription s WHERE s.channel = ? AND s.position = ? AND {_PLAIN.format('s')} LIMIT ?"  # noqa: S608
)
