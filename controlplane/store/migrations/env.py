"""Alembic's environment: runs revisions on the connection that `controlplane.store.migrate` holds.

The connection is inside a transaction of its own, so a start that is killed half way leaves the
tables as they were. There is no offline mode and no `alembic.ini`.
"""

from alembic import context
from sqlmodel import SQLModel

import controlplane.store.tables  # noqa: F401 - fills the metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    transactional_ddl=True,
    render_as_batch=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
