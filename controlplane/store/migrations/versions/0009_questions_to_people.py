"""Questions to people: who answered an await, and the open ones in the order in which they were asked"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

OPEN = "kind = 'question' AND resolved_at IS NULL"


def upgrade() -> None:
    op.add_column("awaiting", sa.Column("answered_by", sa.String(), nullable=True))
    op.create_index(
        "await_of_person", "awaiting", ["since", "await_id"],
        sqlite_where=sa.text(OPEN), postgresql_where=sa.text(OPEN),
    )  # fmt: skip


def downgrade() -> None:
    op.execute("DELETE FROM awaiting WHERE kind = 'question'")
    op.drop_index("await_of_person", "awaiting")
    op.drop_column("awaiting", "answered_by")
