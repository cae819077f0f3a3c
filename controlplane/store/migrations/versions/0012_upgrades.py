"""States have versions; an open turn says what an upgrade decided about it"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("agent", sa.Column("state_version", sa.BigInteger(), nullable=False, server_default="1"))
    op.add_column("turn", sa.Column("looked_for", sa.BigInteger(), nullable=True))
    op.add_column("turn", sa.Column("decided", sa.String(), nullable=True))
    op.add_column("turn", sa.Column("ends_by", sa.Double(), nullable=True))
    op.add_column("turn", sa.Column("differs", sa.Text(), nullable=True))
    where = sa.text("ends_by IS NOT NULL AND finished_at IS NULL")
    op.create_index("turn_ends_by", "turn", ["ends_by"], sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    op.drop_index("turn_ends_by", table_name="turn")
    for column in ("differs", "ends_by", "decided", "looked_for"):
        op.drop_column("turn", column)
    op.drop_column("agent", "state_version")
