"""Where agents shall go, and which hosts are being emptied"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("agent", sa.Column("placement", sa.String(), nullable=True))
    op.add_column("host", sa.Column("draining_since", sa.Double(), nullable=True))


def downgrade() -> None:
    op.drop_column("host", "draining_since")
    op.drop_column("agent", "placement")
