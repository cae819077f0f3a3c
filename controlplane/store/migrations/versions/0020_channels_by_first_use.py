"""Channels that vanish, and who was a member of which when"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None
BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
OF_BEFORE = (  # as far as it is known: members from where they read now
    "INSERT INTO membership (channel, agent, name, joined_position, joined_at)"
    " SELECT s.channel, s.agent, a.name, s.position + 1, s.since FROM subscription s JOIN agent a ON a.uid = s.agent"
)


def upgrade() -> None:
    op.add_column("channel", sa.Column("ephemeral", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("channel", sa.Column("used_at", sa.Double(), nullable=True))
    ephemeral = sa.text("ephemeral = 1")
    op.create_index("channel_ephemeral", "channel", ["uid"], sqlite_where=ephemeral, postgresql_where=ephemeral)
    op.create_table(
        "membership",
        sa.Column("id", BIG, primary_key=True, autoincrement=True),
        sa.Column("channel", sa.String(), nullable=False),
        sa.Column("agent", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("joined_position", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("joined_at", sa.Double(), nullable=False),
        sa.Column("left_position", sa.BigInteger(), nullable=True),
        sa.Column("left_at", sa.Double(), nullable=True),
    )
    op.create_index("membership_of", "membership", ["agent", "channel"])
    op.create_index("membership_in", "membership", ["channel", "id"])
    still, over = sa.text("left_position IS NULL"), sa.text("left_position IS NOT NULL")
    op.create_index(
        "membership_open", "membership", ["agent", "channel"], sqlite_where=still, postgresql_where=still
    )
    op.create_index(
        "membership_ended", "membership", ["channel", "left_position"], sqlite_where=over, postgresql_where=over
    )
    op.execute(OF_BEFORE)


def downgrade() -> None:
    op.drop_table("membership")
    op.drop_index("channel_ephemeral", table_name="channel")
    op.drop_column("channel", "used_at")
    op.drop_column("channel", "ephemeral")
