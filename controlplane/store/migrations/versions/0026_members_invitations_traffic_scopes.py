"""Members from elsewhere, invitations, traffic, and scopes"""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _member()
    _invitation()
    _traffic()
    _scope()
    op.add_column("agent", sa.Column("scope", sa.String(), nullable=True))
    _partial("agent_of_scope", "agent", "scope", "scope IS NOT NULL")


def downgrade() -> None:
    op.drop_index("agent_of_scope", table_name="agent")
    op.drop_column("agent", "scope")
    for table in ("scope", "traffic", "invitation", "member"):
        op.drop_table(table)


def _member() -> None:
    op.create_table(
        "member",
        _bytes("namespace"),
        _bytes("name"),
        _text("principal"),
        *(sa.Column(it, sa.Text(), nullable=False) for it in ("labels", "purpose", "capabilities", "address")),
        _text("meaning"),
        _seconds("since"),
        _seconds("expires_at"),
        sa.PrimaryKeyConstraint("namespace", "name"),
    )
    op.create_index("member_expires", "member", ["expires_at"])
    op.create_index("member_meaning", "member", ["namespace", "meaning"])


def _invitation() -> None:
    op.create_table(
        "invitation",
        _text("invitation_id"),
        _text("kind"),
        _bytes("namespace"),
        _text("name"),
        _text("uid"),
        _bytes("to_namespace"),
        _text("to_agent"),
        _text("effects"),
        _text("principal"),
        _seconds("created_at"),
        _seconds("expires_at"),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("invitation_id"),
    )
    op.create_index("invitation_to", "invitation", ["to_namespace", "namespace", "name"])
    op.create_index("invitation_of", "invitation", ["namespace"])
    op.create_index("invitation_expires", "invitation", ["expires_at"])


def _traffic() -> None:
    key = ("namespace", "name", "source", "channel")
    op.create_table(
        "traffic",
        *(_bytes(it) for it in key),
        *(sa.Column(it, sa.BigInteger(), nullable=False, server_default="0") for it in ("messages", "chars")),
        *(_seconds(it) for it in ("wait_s", "since", "last")),
        sa.PrimaryKeyConstraint(*key),
    )
    op.create_index("traffic_from", "traffic", ["source"])
    op.create_index("traffic_last", "traffic", ["last"])


def _scope() -> None:
    op.create_table(
        "scope",
        *(_text(it) for it in ("scope_id", "owner", "namespace", "name", "kind")),
        _seconds("opened_at"),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("cleared_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("scope_id"),
    )
    _partial("scope_open", "scope", "owner", "ended_at IS NULL")
    _partial("scope_ended", "scope", "ended_at", "ended_at IS NOT NULL AND cleared_at IS NULL")
    _partial("scope_cleared", "scope", "cleared_at", "cleared_at IS NOT NULL")


def _partial(name: str, table: str, column: str, where: str) -> None:
    op.create_index(name, table, [column], sqlite_where=sa.text(where), postgresql_where=sa.text(where))


def _bytes(name: str) -> "sa.Column[str]":
    return sa.Column(name, sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False)


def _text(name: str) -> "sa.Column[str]":
    return sa.Column(name, sa.String(), nullable=False)


def _seconds(name: str) -> "sa.Column[float]":
    return sa.Column(name, sa.Double(), nullable=False)
