"""The table of routes that read their source again, and its statements. As in `statements`.

One row for a route's agent, its last replay: of which source, from behind which place, up to which, and where it goes
on after that. The place itself is the agent's own, of its subscription or in the feedback log: it was set back in the
unit that wrote the row, and goes forward by delivery, as ever.
"""

from sqlalchemy import BigInteger, Column
from sqlmodel import Field, SQLModel

from controlplane.store.columns import big, seconds, seconds_or_none


class ReplayRow(SQLModel, table=True):
    """How far a route's agent reads again; without `until_position` it is told to, by the message `message_id`."""

    __tablename__ = "replay"
    agent: str = Field(primary_key=True)
    replay_id: str
    source: str = Field(description="the uid of a channel, the name of a place in the feedback log, or a connection")
    keys: str = Field(description="same | new")
    asked_at: float = Field(sa_column=seconds())
    principal: str
    change_id: str
    position: int = Field(sa_column=big())
    until_position: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    resume_position: int = Field(sa_column=big())
    gap_first: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    gap_last: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    message_id: str | None = None
    ended_at: float | None = Field(default=None, sa_column=seconds_or_none())
    outcome: str | None = Field(default=None, description="done | cancelled")


BEGIN = (  # in the place of the one that was seen, if any
    "INSERT INTO replay (agent, replay_id, source, keys, asked_at, principal, change_id, position, until_position,"
    " resume_position, gap_first, gap_last, message_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (agent) DO UPDATE SET replay_id = excluded.replay_id, source = excluded.source,"
    " keys = excluded.keys, asked_at = excluded.asked_at, principal = excluded.principal,"
    " change_id = excluded.change_id, position = excluded.position, until_position = excluded.until_position,"
    " resume_position = excluded.resume_position, gap_first = excluded.gap_first, gap_last = excluded.gap_last,"
    " message_id = excluded.message_id, ended_at = NULL, outcome = NULL WHERE replay.replay_id = ?"
)
# A place goes forward while a replay is asked for. It is set back from wherever it is, and that is where it goes on.
RESUME_OF_CHANNEL = (
    "UPDATE replay SET resume_position = (SELECT position FROM subscription WHERE channel = ? AND agent = ?)"
    " WHERE agent = ? AND resume_position < (SELECT position FROM subscription WHERE channel = ? AND agent = ?)"
)
RESUME_OF_EVENTS = (
    "UPDATE replay SET resume_position = (SELECT position FROM feedback_watch WHERE watch = ? AND agent = ?)"
    " WHERE agent = ? AND resume_position < (SELECT position FROM feedback_watch WHERE watch = ? AND agent = ?)"
)
BACK_OF_CHANNEL = "UPDATE subscription SET position = ? WHERE channel = ? AND agent = ? AND position >= ?"
BACK_OF_EVENTS = "UPDATE feedback_watch SET position = ? WHERE watch = ? AND agent = ? AND position >= ?"
ON_OF_CHANNEL = "UPDATE subscription SET position = ? WHERE channel = ? AND agent = ? AND position < ?"
ON_OF_EVENTS = "UPDATE feedback_watch SET position = ? WHERE watch = ? AND agent = ? AND position < ?"
END = "UPDATE replay SET ended_at = ?, outcome = ? WHERE agent = ? AND replay_id = ? AND ended_at IS NULL"
STANDS = "UPDATE replay SET outcome = outcome WHERE agent = ? AND replay_id = ? AND ended_at IS NULL"
AGAIN = (  # of a channel: what stands behind a place, up to another
    "SELECT position, message_id, body, key, rank FROM channel_message"
    " WHERE channel = ? AND position > ? AND position <= ? ORDER BY position LIMIT ?"
)
PUT_AGAIN = (
    "INSERT INTO inbox (agent, message_id, trigger, body, accepted_at, attempts, key, rank, attempts_max)"
    " SELECT ?, ?, 'message', ?, ?, 0, ?, ?, c.attempts_max FROM channel c WHERE c.uid = ?"
    " ON CONFLICT (agent, message_id) DO NOTHING"
)
