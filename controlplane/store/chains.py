"""The statements of chains: what a question may use, with all that is asked because of it. As in `statements`."""

OPEN = (
    "INSERT INTO chain (chain_id, namespace, parent, opened_by, onbehalfof, intent, limits, created_at)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (chain_id) DO NOTHING"
)
ONE = "SELECT parent, limits, namespace FROM chain WHERE chain_id = ?"
SUMS = (
    "WITH RECURSIVE below(id) AS (SELECT CAST(? AS VARCHAR) UNION"
    " SELECT c.chain_id FROM chain c JOIN below b ON c.parent = b.id)"
    " SELECT effect, connection, meter, SUM(amount) FROM usage"
    " WHERE chain <> '' AND chain IN (SELECT id FROM below) GROUP BY effect, connection, meter"
)
GIVE = "UPDATE agent SET chain = ? WHERE uid = ?"
# What a reply goes on with: the message of the turn that had made the request.
ASKED_IN = "SELECT t.message FROM awaiting a JOIN turn t ON t.turn_id = a.turn_id WHERE a.await_id = ?"
MESSAGE_OF = "SELECT message FROM turn WHERE turn_id = ?"
