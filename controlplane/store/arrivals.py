"""What came in over connections, so that each comes once. As in `statements`."""

ARRIVED = (
    "INSERT INTO arrival (connection, message_id, at) VALUES (?, ?, ?) ON CONFLICT (connection, message_id) DO NOTHING"
)
KNOWN = "SELECT 1 FROM arrival WHERE connection = ? AND message_id = ?"
KEPT_S = 604_800.0  # whoever posts it again does so within days
FORGET = (
    "DELETE FROM arrival WHERE (connection, message_id) IN"
    " (SELECT connection, message_id FROM arrival WHERE at < ? ORDER BY at LIMIT ?)"
)
