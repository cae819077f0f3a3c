"""Dead letters say what they were and which way they came, so that they can be put back"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("dead_letter", sa.Column("trigger", sa.String(), nullable=False, server_default="message"))
    op.add_column("dead_letter", sa.Column("channel", sa.String(), nullable=True))
    op.create_index("dead_letter_of", "dead_letter", ["namespace", "id"])


def downgrade() -> None:
    op.drop_index("dead_letter_of", table_name="dead_letter")
    op.drop_column("dead_letter", "channel")
    op.drop_column("dead_letter", "trigger")
