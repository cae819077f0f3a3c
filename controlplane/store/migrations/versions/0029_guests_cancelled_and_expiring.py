"""Guests of channels, delayed messages that were cancelled, questions whose message expires, the most urgent of a key"""

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("subscription", sa.Column("invitation", sa.String(), nullable=True))
    _partial("subscription_of_guest", "subscription", ["invitation"], "invitation IS NOT NULL")
    op.add_column("delayed", sa.Column("cancelled_at", sa.Double(), nullable=True))
    op.drop_index("delayed_due", table_name="delayed")
    _partial("delayed_due", "delayed", ["due_at", "id"], "cancelled_at IS NULL")
    _partial("delayed_cancelled", "delayed", ["cancelled_at"], "cancelled_at IS NOT NULL")
    op.add_column("awaiting", sa.Column("expires_at", sa.Double(), nullable=True))
    _partial("await_expires", "awaiting", ["expires_at"], "expires_at IS NOT NULL AND resolved_at IS NULL")
    _partial("queued_key_rank", "queued", ["channel", "key", "own_rank"], "key IS NOT NULL")


def downgrade() -> None:
    op.drop_index("queued_key_rank", table_name="queued")
    op.drop_index("await_expires", table_name="awaiting")
    op.drop_column("awaiting", "expires_at")
    op.execute("DELETE FROM delayed WHERE cancelled_at IS NOT NULL")
    op.drop_index("delayed_cancelled", table_name="delayed")
    op.drop_index("delayed_due", table_name="delayed")
    op.create_index("delayed_due", "delayed", ["due_at", "id"])
    op.drop_column("delayed", "cancelled_at")
    op.execute("DELETE FROM subscription WHERE invitation IS NOT NULL")
    op.drop_index("subscription_of_guest", table_name="subscription")
    op.drop_column("subscription", "invitation")


def _partial(name: str, table: str, columns: list[str], where: str) -> None:
    op.create_index(name, table, columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
