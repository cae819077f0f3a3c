"""Whose own a host is"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("host", sa.Column("kept_for", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("host", "kept_for")
