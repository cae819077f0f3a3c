"""Replays of routes, and claims that bind nothing"""

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0029"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "replay",
        *(sa.Column(it, sa.String(), nullable=False) for it in ("agent", "replay_id", "source", "keys")),
        sa.Column("asked_at", sa.Double(), nullable=False),
        *(sa.Column(it, sa.String(), nullable=False) for it in ("principal", "change_id")),
        sa.Column("position", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("until_position", sa.BigInteger(), nullable=True),
        sa.Column("resume_position", sa.BigInteger(), nullable=False, server_default="0"),
        *(sa.Column(it, sa.BigInteger(), nullable=True) for it in ("gap_first", "gap_last")),
        sa.Column("message_id", sa.String(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("outcome", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("agent"),
    )
    op.add_column("claim", sa.Column("binding", sa.BigInteger(), nullable=False, server_default="1"))


def downgrade() -> None:
    op.drop_column("claim", "binding")
    op.drop_table("replay")
