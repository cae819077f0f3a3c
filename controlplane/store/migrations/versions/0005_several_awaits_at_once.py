"""Several awaits at once: a gathering knows its members, and how many answers are enough"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("awaiting", sa.Column("members", sa.Integer(), nullable=True))
    op.add_column("awaiting", sa.Column("needs", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.execute("DELETE FROM awaiting WHERE kind = 'gather'")
    op.drop_column("awaiting", "needs")
    op.drop_column("awaiting", "members")
