"""Plans, what they decided, what they replaced and what they claimed are kept packed"""

import sqlalchemy as sa
from alembic import op

from controlplane.store.packed import unpack

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

COLUMNS = (("plan", "plan_id", "body"), ("plan", "plan_id", "decisions"), ("change", "change_id", "undo"))
CLAIM = ("claim", "change_id || '/' || claim_id", "body")
ROWS_MAX = 500


def _on_postgresql() -> bool:
    return op.get_bind().dialect.name == "postgresql"


def upgrade() -> None:
    """What is there stays as it is, and is read as the text that it is."""
    op.execute("UPDATE plan SET decisions = '' WHERE change_id IS NOT NULL")
    for table, _, column in (*COLUMNS, CLAIM):
        if _on_postgresql():
            op.execute(f"ALTER TABLE {table} ALTER COLUMN {column} TYPE BYTEA USING convert_to({column}, 'UTF8')")
        else:
            with op.batch_alter_table(table) as batch:
                batch.alter_column(column, type_=sa.LargeBinary())


def downgrade() -> None:
    for table, key, column in (*COLUMNS, CLAIM):
        _unpack_all(table, key, column)
        if _on_postgresql():
            op.execute(f"ALTER TABLE {table} ALTER COLUMN {column} TYPE TEXT USING convert_from({column}, 'UTF8')")
        else:
            with op.batch_alter_table(table) as batch:
                batch.alter_column(column, type_=sa.Text())
            op.execute(f"UPDATE {table} SET {column} = CAST({column} AS TEXT)")


def _unpack_all(table: str, key: str, column: str) -> None:
    """A window of rows at a time, by their key."""
    bind, after = op.get_bind(), ""
    look = f"SELECT {key}, {column} FROM {table} WHERE {key} > :after ORDER BY {key} LIMIT {ROWS_MAX}"
    write = sa.text(f"UPDATE {table} SET {column} = :text WHERE {key} = :key")
    while found := bind.execute(sa.text(look), {"after": after}).all():
        bind.execute(write, [{"key": name, "text": unpack(kept).encode()} for name, kept in found])
        after = found[-1][0]
