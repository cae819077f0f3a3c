"""Operations that act at once are changes too"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("change", sa.Column("operation", sa.String(), nullable=True))
    op.add_column("change", sa.Column("batch", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("change", "batch")
    op.drop_column("change", "operation")
