"""Life from within: timers by cron expression, batches of channels, places in the feedback log"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

FIRINGS = "trigger = 'timer'"


def upgrade() -> None:
    op.add_column("timer", sa.Column("cron", sa.String(), nullable=True))
    op.add_column("timer", sa.Column("zone", sa.String(), nullable=True))
    op.add_column("timer", sa.Column("missed", sa.String(), nullable=False, server_default="fire_once"))
    op.add_column("timer", sa.Column("behind", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_index("inbox_timer", "inbox", ["agent"], sqlite_where=sa.text(FIRINGS), postgresql_where=sa.text(FIRINGS))
    op.add_column("subscription", sa.Column("debounce_s", sa.Double(), nullable=False, server_default="0"))
    op.add_column("subscription", sa.Column("batch_max", sa.BigInteger(), nullable=False, server_default="1"))
    op.create_table(
        "feedback_watch",
        sa.Column("agent", sa.String(), nullable=False),
        sa.Column("watch", sa.String(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("told", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("since", sa.Double(), nullable=False),
        sa.Column("filter", sa.Text(), nullable=False),
        sa.Column("debounce_s", sa.Double(), nullable=False),
        sa.Column("batch_max", sa.BigInteger(), nullable=False, server_default="1"),
        sa.PrimaryKeyConstraint("agent", "watch"),
    )


def downgrade() -> None:
    op.drop_table("feedback_watch")
    op.drop_column("subscription", "batch_max")
    op.drop_column("subscription", "debounce_s")
    op.drop_index("inbox_timer", "inbox")
    for name in ("behind", "missed", "zone", "cron"):
        op.drop_column("timer", name)
