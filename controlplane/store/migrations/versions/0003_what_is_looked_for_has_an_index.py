"""What is looked for has an index: nothing that is asked often costs by how many agents there are"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

NAMES = ("namespace", "name")
LIVE, SINGLE = "deleted_at IS NULL", "kind = 'Agent' AND deleted_at IS NULL AND ordinal IS NULL"
PARTIAL = (
    ("resource_live", "resource", ["kind", "namespace", "name"], LIVE),
    ("resource_single", "resource", ["kind", "ordinal", "namespace", "name"], SINGLE),
    ("resource_member", "resource", ["owner", "template", "ordinal"], f"{LIVE} AND owner IS NOT NULL"),
    ("resource_left", "resource", ["owner"], "deleted_at IS NOT NULL AND owner IS NOT NULL"),
    ("agent_stopped", "agent", ["namespace"], "stopped = 1"),
    ("inbox_start", "inbox", ["agent"], "trigger = 'start'"),
)
# Members of fleets carry their place. An empty mark is no template's: the fleet looks at them once more.
PLACE = """UPDATE resource SET template = '', ordinal = CAST(SUBSTR(name, LENGTH(
(SELECT f.name FROM resource f WHERE f.uid = resource.owner)) + 2) AS BIGINT)
WHERE kind = 'Agent' AND deleted_at IS NULL AND owner IN (SELECT uid FROM resource WHERE kind = 'Fleet')"""
# A tombstone whose running side is gone belongs to nobody any more.
FREE = "UPDATE resource SET owner = NULL WHERE deleted_at IS NOT NULL AND uid NOT IN (SELECT uid FROM agent)"


def _label(name: str, *order: str, by_bytes: bool) -> None:
    """The labels again, with the key in another order."""
    text = sa.String().with_variant(sa.String(collation="C"), "postgresql") if by_bytes else sa.String()
    columns = (sa.Column(it, text if it in NAMES else sa.String(), nullable=False) for it in order)
    op.create_table(name, *columns, sa.PrimaryKeyConstraint(*order, name=f"{name}_key"))
    named = ", ".join(order)
    op.execute(f"INSERT INTO {name} ({named}) SELECT {named} FROM label")  # noqa: S608 - names of ours
    op.drop_table("label")
    op.rename_table(name, "label")


def _collate(collation: str) -> None:
    """Names of resources in the order of bytes, as SQLite has them already."""
    if op.get_bind().dialect.name == "postgresql":
        for it in NAMES:
            op.execute(f'ALTER TABLE resource ALTER COLUMN {it} TYPE VARCHAR COLLATE "{collation}"')


def upgrade() -> None:
    _label("label_of_value", "kind", "key", "value", "namespace", "name", by_bytes=True)
    _collate("C")
    op.drop_index("ix_resource_owner", "resource")
    op.add_column("resource", sa.Column("ordinal", sa.BigInteger(), nullable=True))
    op.add_column("resource", sa.Column("template", sa.String(), nullable=True))
    op.execute(PLACE)
    op.execute(FREE)
    for name, table, columns, where in PARTIAL:
        op.create_index(name, table, columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
    op.create_index("subscription_by_position", "subscription", ["channel", "position"])


def downgrade() -> None:
    op.drop_index("subscription_by_position", "subscription")
    for name, table, _, _ in reversed(PARTIAL):
        op.drop_index(name, table)
    op.drop_column("resource", "template")
    op.drop_column("resource", "ordinal")
    op.create_index("ix_resource_owner", "resource", ["owner"])
    _collate("default")
    _label("label_of_namespace", "kind", "namespace", "key", "value", "name", by_bytes=False)
