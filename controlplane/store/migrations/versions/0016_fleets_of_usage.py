"""An agent's use is summed by the fleet that it was of"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

KEY = ("namespace", "agent", "hour", "effect", "connection", "meter", "chain")


def upgrade() -> None:
    _rebuilt((*KEY, "fleet"), ("amount",), "SELECT {} FROM usage_before")


def downgrade() -> None:
    named = ", ".join(KEY)
    sums = f"SELECT {named}, MAX(fleet), SUM(amount) FROM usage_before GROUP BY {named}"  # noqa: S608 - names of ours
    _rebuilt(KEY, ("fleet", "amount"), sums)


def _column(name: str) -> "sa.Column[object]":
    if name in ("hour", "amount"):
        default = "0" if name == "amount" else None
        return sa.Column(name, sa.BigInteger(), nullable=False, server_default=default)
    if name == "chain":
        return sa.Column(name, sa.String(), nullable=False, server_default="")
    return sa.Column(name, sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False)


def _rebuilt(key: tuple[str, ...], more: tuple[str, ...], taken: str) -> None:
    """The same sums under another key, which SQLite can give to a new table only."""
    op.rename_table("usage", "usage_before")
    op.drop_index("usage_by_hour", table_name="usage_before")
    op.drop_index("usage_by_chain", table_name="usage_before")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER INDEX usage_pkey RENAME TO usage_before_pkey")
    op.create_table("usage", *(_column(name) for name in (*key, *more)), sa.PrimaryKeyConstraint(*key))
    named = ", ".join((*key, *more))
    op.execute(f"INSERT INTO usage ({named}) " + taken.format(named))  # noqa: S608 - names of ours
    op.drop_table("usage_before")
    op.create_index("usage_by_hour", "usage", ["hour"])
    where = sa.text("chain <> ''")
    op.create_index("usage_by_chain", "usage", ["chain"], sqlite_where=where, postgresql_where=where)
