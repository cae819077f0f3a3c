"""A publication that takes its members along. As in `statements`: before the position is passed.

Who has everything before it, and room in its inbox, has it in the same unit; whoever lags gets it by a delivery.
"""

FEW_WAIT = 255  # with more messages in its inbox, a member lags until those are fewer
AT_ONCE = 256  # so many members in one unit; the others follow

TO_MEMBERS = (
    "INSERT INTO inbox (agent, message_id, trigger, body, accepted_at, attempts, key, rank, attempts_max)"  # noqa: S608
    " SELECT s.agent, m.message_id, 'message', m.body, ?, 0, m.key, m.rank, c.attempts_max"
    " FROM channel c JOIN channel_message m ON m.channel = c.uid AND m.position = c.next_position"
    " JOIN subscription s ON s.channel = c.uid AND s.position = c.next_position - 1"
    " WHERE c.namespace = ? AND c.name = ? AND c.mode = 'broadcast' AND s.debounce_s = 0 AND s.batch_max = 1"
    f" AND NOT EXISTS (SELECT 1 FROM inbox i WHERE i.agent = s.agent LIMIT 1 OFFSET ?)"
    f" LIMIT {AT_ONCE} ON CONFLICT (agent, message_id) DO NOTHING"
)
MEMBERS_FOLLOW = (
    "UPDATE subscription SET position = position + 1 WHERE (channel, position) = (SELECT c.uid, c.next_position - 1"
    " FROM channel c WHERE c.namespace = ? AND c.name = ? AND c.mode = 'broadcast')"
    " AND debounce_s = 0 AND batch_max = 1 AND EXISTS (SELECT 1 FROM channel_message m JOIN inbox i"
    " ON i.agent = subscription.agent AND i.message_id = m.message_id"
    " WHERE m.channel = subscription.channel AND m.position = subscription.position + 1)"
)
PUBLISHED = (  # a channel, and the position of a message of it
    "SELECT c.uid, c.mode, m.position FROM channel c LEFT JOIN channel_message m"
    " ON m.channel = c.uid AND m.message_id = ? WHERE c.namespace = ? AND c.name = ?"
)
REACHED = "SELECT agent FROM subscription WHERE channel = ? AND position >= ? AND debounce_s = 0 AND batch_max = 1"
READY = (  # whoever has all that is committed: a few
    "SELECT agent FROM subscription WHERE channel = ? AND position = ? AND debounce_s = 0 AND batch_max = 1 LIMIT ?"
)
