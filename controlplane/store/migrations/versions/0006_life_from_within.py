"""Timers by cron expression, and what they missed"""

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


def downgrade() -> None:
    op.drop_index("inbox_timer", "inbox")
    for name in ("behind", "missed", "zone", "cron"):
        op.drop_column("timer", name)
