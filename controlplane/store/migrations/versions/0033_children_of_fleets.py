"""A child is of the fleet that its parent was of"""

import sqlalchemy as sa
from alembic import op

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("agent", sa.Column("fleet", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("agent", "fleet")
