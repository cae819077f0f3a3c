"""Who may name stored code by its digest"""

import json

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    reach = op.create_table(
        "code_reach",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("namespace", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("digest", "namespace"),
    )
    if rows := _used(op.get_bind()):
        op.bulk_insert(reach, [{"digest": digest, "namespace": namespace} for digest, namespace in sorted(rows)])


def _used(connection: sa.Connection) -> set[tuple[str, str]]:
    """What is declared keeps its code; what was only put is left to who reaches all namespaces."""
    declared = sa.text("SELECT kind, namespace, spec FROM resource WHERE kind IN ('Agent', 'Fleet')")
    rows = set()
    for kind, namespace, text in connection.execute(declared):
        spec = json.loads(text)
        rows.add(((spec if kind == "Agent" else spec["template"]["spec"])["code"]["digest"], namespace))
    return rows


def downgrade() -> None:
    op.drop_table("code_reach")
