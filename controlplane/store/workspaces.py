"""The files of agents' workspaces at rest: each with the hash of its bytes, written by the commit that changed it."""

from controlplane.store.batching import Many

PUT = Many(
    "INSERT INTO workspace_file (agent, path, digest, executable, size, body) VALUES (?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (agent, path) DO UPDATE SET digest = excluded.digest, executable = excluded.executable,"
    " size = excluded.size, body = excluded.body"
)
DROP = Many("DELETE FROM workspace_file WHERE agent = ? AND path = ?")
FILES = "SELECT path, digest, executable, body FROM workspace_file WHERE agent = ? ORDER BY path"
SIZES = "SELECT path, size FROM workspace_file WHERE agent = ?"
