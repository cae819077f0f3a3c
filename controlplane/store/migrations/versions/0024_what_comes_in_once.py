"""What comes in over connections is known for a while, so that it comes once"""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "arrival",
        sa.Column("connection", sa.String(), nullable=False),
        sa.Column("message_id", sa.String(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("connection", "message_id"),
    )
    op.create_index("arrival_by_time", "arrival", ["at"])


def downgrade() -> None:
    op.drop_index("arrival_by_time", table_name="arrival")
    op.drop_table("arrival")
