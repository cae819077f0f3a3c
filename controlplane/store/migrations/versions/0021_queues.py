"""Queues, what is delayed, and what goes ahead"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None
BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
PARTIAL = (
    ("channel_queue", "channel", ["uid"], "mode = 'queue'"),
    ("inbox_urgent", "inbox", ["agent", "rank", "seq"], "rank IS NOT NULL"),
    ("inbox_key", "inbox", ["agent", "key", "seq"], "key IS NOT NULL"),
    ("inbox_of_queue", "inbox", ["channel", "key"], "channel IS NOT NULL"),
    ("inbox_held", "inbox", ["agent", "channel"], "channel IS NOT NULL"),
    ("queued_key", "queued", ["channel", "key", "position"], "key IS NOT NULL"),
    ("queued_expires", "queued", ["expires_at"], "expires_at IS NOT NULL"),
)
INBOX = ("rank", "position", "attempts_max")


def upgrade() -> None:
    op.add_column("channel", sa.Column("mode", sa.String(), nullable=False, server_default="broadcast"))
    op.add_column("channel", sa.Column("backlog_max", sa.BigInteger(), nullable=False, server_default="10000"))
    op.add_column("channel", sa.Column("attempts_max", sa.BigInteger(), nullable=True))
    op.add_column("channel", sa.Column("in_flight_max", sa.BigInteger(), nullable=False, server_default="1"))
    op.add_column("channel_message", sa.Column("rank", sa.BigInteger(), nullable=True))
    op.add_column("inbox", sa.Column("key", sa.String(), nullable=True))
    op.add_column("inbox", sa.Column("channel", sa.String(), nullable=True))
    for name in INBOX:
        op.add_column("inbox", sa.Column(name, sa.BigInteger(), nullable=True))
    op.create_table(
        "queued",
        sa.Column("channel", sa.String(), nullable=False, primary_key=True),
        sa.Column("position", sa.BigInteger(), nullable=False, primary_key=True),
        sa.Column("key", sa.String(), nullable=True),
        sa.Column("own_rank", sa.BigInteger(), nullable=False, server_default="9"),
        sa.Column("rank", sa.BigInteger(), nullable=False, server_default="9"),
        sa.Column("ready", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("attempts", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("expires_at", sa.Double(), nullable=True),
    )
    op.create_index("queued_ready", "queued", ["channel", "ready", "rank", "position"])
    op.create_table(
        "delayed",
        sa.Column("id", BIG, primary_key=True, autoincrement=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("namespace", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("message_id", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=True),
        sa.Column("rank", sa.BigInteger(), nullable=True),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("due_at", sa.Double(), nullable=False),
    )
    op.create_index("delayed_once", "delayed", ["kind", "namespace", "name", "message_id"], unique=True)
    op.create_index("delayed_due", "delayed", ["due_at", "id"])
    for name, table, columns, where in PARTIAL:
        op.create_index(name, table, columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))


def downgrade() -> None:
    for name, table, _, _ in PARTIAL:
        op.drop_index(name, table_name=table)
    op.drop_table("delayed")
    op.drop_table("queued")
    for name in (*INBOX, "channel", "key"):
        op.drop_column("inbox", name)
    op.drop_column("channel_message", "rank")
    for name in ("in_flight_max", "attempts_max", "backlog_max", "mode"):
        op.drop_column("channel", name)
