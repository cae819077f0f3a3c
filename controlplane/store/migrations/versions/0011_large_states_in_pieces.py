"""States of more than 64 KiB are kept in pieces by their hash"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("agent", sa.Column("chunks", sa.Text(), nullable=True))
    op.create_table(
        "state_chunk",
        sa.Column("agent", sa.String(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("agent", "hash"),
    )


def downgrade() -> None:
    """States become whole again first."""
    connection = op.get_bind()
    found = connection.execute(sa.text("SELECT uid, chunks FROM agent WHERE chunks IS NOT NULL")).all()
    for uid, chunks in found:
        pieces = connection.execute(sa.text("SELECT hash, body FROM state_chunk WHERE agent = :uid"), {"uid": uid})
        by_hash = {name: bytes(body) for name, body in pieces}
        state = b"".join(by_hash[name] for name in chunks.split()).decode()
        connection.execute(sa.text("UPDATE agent SET state = :state WHERE uid = :uid"), {"state": state, "uid": uid})
    op.drop_table("state_chunk")
    op.drop_column("agent", "chunks")
