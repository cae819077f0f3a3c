"""What every turn uses, and every effect, is one row of sums, and all of it is read by one view"""

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None

KEY = ("namespace", "agent", "hour", "effect", "connection", "fleet")
METERS = ("turns", "active_s", "cpu_s", "effects", "bytes_out", "bytes_in")
COLUMNS = "namespace, agent, hour, effect, connection, meter, chain, fleet, amount"


def upgrade() -> None:
    op.create_table(
        "usage_common",
        *(_key(it) for it in KEY),
        *(sa.Column(it, sa.BigInteger(), nullable=False, server_default="0") for it in METERS),
        sa.PrimaryKeyConstraint(*KEY),
    )
    op.create_index("usage_common_by_hour", "usage_common", ["hour"])
    arms = [f"SELECT {COLUMNS} FROM usage"]  # noqa: S608 - names of ours
    for meter in METERS:
        told = COLUMNS.replace("meter, chain", f"'{meter}' AS meter, '' AS chain").replace("amount", f"{meter} AS amount")
        arms.append(f"SELECT {told} FROM usage_common WHERE {meter} > 0")  # noqa: S608 - names of ours
    op.execute("CREATE VIEW used AS " + " UNION ALL ".join(arms))


def downgrade() -> None:
    op.execute("DROP VIEW used")
    for meter in METERS:
        told = COLUMNS.replace("meter, chain", f"'{meter}', ''").replace("amount", meter)
        op.execute(
            f"INSERT INTO usage ({COLUMNS}) SELECT {told} FROM usage_common WHERE {meter} > 0"  # noqa: S608 - names of ours
            " ON CONFLICT (namespace, agent, hour, effect, connection, meter, chain, fleet)"
            " DO UPDATE SET amount = usage.amount + excluded.amount"
        )
    op.drop_table("usage_common")


def _key(name: str) -> "sa.Column[object]":
    if name == "hour":
        return sa.Column(name, sa.BigInteger(), nullable=False)
    return sa.Column(name, sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False)
