"""What far sides offer over connections, and what of it was accepted"""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

BY_BYTES = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "offer",
        sa.Column("connection", BY_BYTES, nullable=False),
        sa.Column("tool", BY_BYTES, nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.Column("gone_at", sa.Double(), nullable=True),
        sa.Column("accepted", sa.String(), nullable=True),
        sa.Column("accepted_body", sa.LargeBinary(), nullable=True),
        sa.Column("roles", sa.Text(), nullable=True),
        sa.Column("accepted_by", sa.String(), nullable=True),
        sa.Column("accepted_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("connection", "tool"),
    )


def downgrade() -> None:
    op.drop_table("offer")
