"""What was used: sums by agent, hour and meter"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    def text() -> sa.types.TypeEngine[str]:
        return sa.String().with_variant(sa.String(collation="C"), "postgresql")

    op.create_table(
        "usage",
        sa.Column("namespace", text(), nullable=False),
        sa.Column("agent", text(), nullable=False),
        sa.Column("hour", sa.BigInteger(), nullable=False),
        sa.Column("effect", text(), nullable=False),
        sa.Column("connection", text(), nullable=False),
        sa.Column("meter", text(), nullable=False),
        sa.Column("fleet", sa.String(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("namespace", "agent", "hour", "effect", "connection", "meter"),
    )
    op.create_index("usage_by_hour", "usage", ["hour"])


def downgrade() -> None:
    op.drop_table("usage")
