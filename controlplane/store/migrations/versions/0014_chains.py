"""What a chain of questions may use; usage says which chain it was of"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

KEY = ("namespace", "agent", "hour", "effect", "connection", "meter")


def text() -> sa.types.TypeEngine[str]:
    return sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "chain",
        sa.Column("chain_id", sa.String(), primary_key=True),
        sa.Column("namespace", sa.String(), nullable=False),
        sa.Column("parent", sa.String(), nullable=True),
        sa.Column("opened_by", sa.String(), nullable=False),
        sa.Column("onbehalfof", sa.String(), nullable=True),
        sa.Column("intent", sa.Text(), nullable=True),
        sa.Column("limits", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
    )
    op.create_index("chain_created", "chain", ["created_at"])
    _partial("chain_by_parent", "chain", ["parent"], "parent IS NOT NULL")
    op.add_column("agent", sa.Column("chain", sa.String(), nullable=True))
    _partial("agent_of_chain", "agent", ["chain"], "chain IS NOT NULL")
    _rebuilt((*KEY, "chain"), "''")
    _partial("usage_by_chain", "usage", ["chain"], "chain <> ''")


def downgrade() -> None:
    op.drop_index("usage_by_chain", table_name="usage")
    _rebuilt(KEY, None)
    op.drop_index("agent_of_chain", table_name="agent")
    op.drop_column("agent", "chain")
    op.drop_index("chain_by_parent", table_name="chain")
    op.drop_index("chain_created", table_name="chain")
    op.drop_table("chain")


def _partial(name: str, table: str, columns: list[str], where: str) -> None:
    op.create_index(name, table, columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))


def _column(name: str) -> "sa.Column[object]":
    if name == "chain":
        return sa.Column(name, sa.String(), nullable=False, server_default="")
    return sa.Column(name, sa.BigInteger() if name == "hour" else text(), nullable=False)


def _rebuilt(key: tuple[str, ...], chain: str | None) -> None:
    """The same sums under another key, which SQLite can give to a new table only."""
    op.rename_table("usage", "usage_before")
    op.drop_index("usage_by_hour", table_name="usage_before")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER INDEX usage_pkey RENAME TO usage_before_pkey")
    op.create_table(
        "usage",
        *(_column(name) for name in key),
        sa.Column("fleet", sa.String(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint(*key),
    )
    given, taken = ", ".join(KEY), ", ".join(key)
    values = given if chain is None else f"{given}, {chain}"
    total = "SUM(amount)" if chain is None else "amount"
    grouped = f" GROUP BY {given}" if chain is None else ""
    fleet = "MAX(fleet)" if chain is None else "fleet"
    op.execute(
        f"INSERT INTO usage ({taken}, fleet, amount) SELECT {values}, {fleet}, {total} FROM usage_before{grouped}"  # noqa: S608
    )
    op.drop_table("usage_before")
    op.create_index("usage_by_hour", "usage", ["hour"])
