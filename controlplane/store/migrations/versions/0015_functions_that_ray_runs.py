"""Functions that Ray runs for a turn, and the agents of which branches wait"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

BRANCH = "branch > '0'"


def upgrade() -> None:
    op.add_column("awaiting", sa.Column("attempts", sa.Integer(), nullable=True))
    op.add_column("awaiting", sa.Column("runner", sa.String(), nullable=True))
    for name, column, which in (("await_of_compute", "await_id", "kind = 'compute'"), ("await_of_branch", "agent", BRANCH)):
        where = sa.text(f"{which} AND resolved_at IS NULL")
        op.create_index(name, "awaiting", [column], sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    op.execute("DELETE FROM awaiting WHERE kind = 'compute'")
    op.drop_index("await_of_branch", "awaiting")
    op.drop_index("await_of_compute", "awaiting")
    op.drop_column("awaiting", "runner")
    op.drop_column("awaiting", "attempts")
