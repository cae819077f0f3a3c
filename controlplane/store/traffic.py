"""Statements of who talks to whom, the same on both databases.

Sums are counted from turns that ended, in the unit that moves the mark of summaries: each turn once. An agent's
sources are told apart up to a number; what comes from further ones is counted together, under `*`.
"""

from controlplane.store.batching import Many

SOURCES_MAX = 200  # of one agent
COUNTED = (
    "SELECT SUBSTR(t.message, 1, 600), SUBSTR(t.message, LENGTH(t.message) - 80), LENGTH(t.message),"
    " t.started_at, t.finished_at, a.namespace, a.name FROM turn t JOIN resource a ON a.uid = t.agent"
    " WHERE t.finished_at > ? AND t.finished_at <= ? AND t.trigger IN ('message', 'reply', 'batch')"
)
_KNOWN = "SELECT 1 FROM traffic t WHERE t.namespace = ? AND t.name = ? AND t.source = ? AND t.channel = ?"
_MANY = "SELECT COUNT(*) FROM traffic t WHERE t.namespace = ? AND t.name = ?"
_PUT = (
    " INTO traffic (namespace, name, source, channel, messages, chars, wait_s, since, last)"
    " SELECT ?, ?, ?, ?, ?, ?, ?, ?, ? WHERE"
)
_ADD = (
    " ON CONFLICT (namespace, name, source, channel) DO UPDATE SET messages = traffic.messages + excluded.messages,"
    " chars = traffic.chars + excluded.chars, wait_s = traffic.wait_s + excluded.wait_s, last = excluded.last"
)
ADD = Many(f"INSERT{_PUT} (EXISTS ({_KNOWN}) OR ({_MANY}) < {SOURCES_MAX}){_ADD}")
ADD_TO_OTHERS = Many(f"INSERT{_PUT} NOT EXISTS ({_KNOWN}){_ADD}")
TRAFFIC = (
    "DELETE FROM traffic WHERE (namespace, name, source, channel) IN (SELECT namespace, name, source, channel"
    " FROM traffic WHERE last < ? ORDER BY last LIMIT ?)"
)
