"""What a replay is held against: a hash of the state where a handler came to wait, and the journal's format"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("journal", sa.Column("state", sa.String(), nullable=True))
    op.add_column("turn", sa.Column("format", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("turn", "format")
    op.drop_column("journal", "state")
