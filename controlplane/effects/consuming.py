"""The end of a message: out of the inbox; of a queue, the next of its key is for anybody. Pure."""

from controlplane.effects.turnref import Row, TurnRef
from controlplane.store import queues
from controlplane.store import statements as sql


def consumed(turn: TurnRef) -> list[Row]:
    """The message is done. Last in its unit: before it, whoever sends it again finds it there, after it, the turn."""
    return [*finished_of_queue(turn), (sql.CONSUME, (turn.agent, turn.message_id), 1)]


def finished_of_queue(turn: TurnRef) -> list[Row]:
    """Nobody holds the key of a message of a queue any more, unless the same member has another one of it."""
    if turn.queue is None or turn.key is None:
        return []
    key = (turn.queue, turn.key)
    return [(queues.PROMOTE_KEY, (*key, *key, *key, turn.message_id), -1)]
