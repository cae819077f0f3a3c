"""Code that did not come to the same when a turn was run again"""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "divergence",
        *(sa.Column(it, sa.String(), nullable=False) for it in ("digest", "namespace", "kind", "agent", "turn_id")),
        sa.Column("problem", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("digest", "namespace", "kind"),
    )


def downgrade() -> None:
    op.drop_table("divergence")
