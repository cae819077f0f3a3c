"""What is told of a route's poll: about the route that owns the agent which says so. As in `statements`."""

from controlplane.store.batching import Many

POLL_EVENT = Many(
    "INSERT INTO event (type, time, kind, namespace, name, turn_id, data)"
    " SELECT ?, ?, 'Route', r.namespace, r.name, ?, ? FROM resource w JOIN resource r ON r.uid = w.owner"
    " WHERE w.uid = ? AND r.kind = 'Route'"
)
