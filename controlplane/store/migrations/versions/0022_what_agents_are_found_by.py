"""What agents are found by, and the vectors of what they say of themselves"""

import hashlib
import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

ROWS = 1_000


def upgrade() -> None:
    key = ("kind", "namespace", "value", "name")
    op.create_table("trait", *(_bytes(name) for name in key), sa.PrimaryKeyConstraint(*key))
    op.create_table(
        "meaning",
        _bytes("namespace"),
        _bytes("mark"),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "mark"),
    )
    op.create_index("meaning_at", "meaning", ["at", "namespace", "mark"])
    _fill()


def downgrade() -> None:
    op.drop_table("meaning")
    op.drop_table("trait")


def _bytes(name: str) -> "sa.Column[str]":
    return sa.Column(name, sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False)


def _fill() -> None:
    """The traits of the agents that are there, in the order of their names, a bounded piece at a time."""
    connection, after = op.get_bind(), ("", "")
    query = sa.text(
        "SELECT namespace, name, spec FROM resource WHERE kind = 'Agent' AND deleted_at IS NULL"
        " AND (namespace, name) > (:namespace, :name) ORDER BY namespace, name LIMIT :rows"
    )
    put = sa.text("INSERT INTO trait (kind, namespace, value, name) VALUES (:kind, :namespace, :value, :name)")
    while rows := connection.execute(query, {"namespace": after[0], "name": after[1], "rows": ROWS}).all():
        after = rows[-1][0], rows[-1][1]
        found = [
            {"kind": kind, "namespace": namespace, "value": value, "name": name}
            for namespace, name, spec in rows
            for kind, value in _traits(json.loads(spec))
        ]
        if found:
            connection.execute(put, found)


def _traits(spec: dict[str, Any]) -> list[tuple[str, str]]:
    """As of this revision: a capability was a name alone."""
    names = [it if isinstance(it, str) else it["name"] for it in spec.get("capabilities") or ()]
    purpose = ((spec.get("mandate") or {}).get("purpose") or "").strip()
    text = "\n".join(line for line in [purpose, *(it.replace("-", " ") for it in names)] if line)
    marks = [("meaning", hashlib.sha256(text.encode()).hexdigest()[:32])] if text else []
    return sorted({("capability", it) for it in names}) + marks
