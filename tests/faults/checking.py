"""The laws that a history must keep, whatever happened while it was made. Pure: it is fed, and says what is broken.

Nothing acknowledged is lost, nothing internal is done twice, order per sender, one owner an epoch, answers are
among the allowed, an external effect is done once or said to be in doubt, no turn without an end, and no orphan.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple


class Turn(NamedTuple):
    """A turn as it is stored."""

    agent: str
    message_id: str
    outcome: str
    epoch: int
    problem: str | None = None


class Stream(NamedTuple):
    """What each sender was acknowledged, in its order, and what one receiver keeps of all of them."""

    receiver: str
    sent: dict[str, list[Any]]
    got: list[tuple[str, Any]]


class Pile(NamedTuple):
    """What must be there once each, in any order."""

    holder: str
    wanted: list[Any]
    got: list[Any]


class Answer(NamedTuple):
    """What a question may be answered, and what it was; `kept` is what the agent remembers to have said."""

    await_id: str
    allowed: list[Any]
    outcome: str | None
    result: Any
    kept: list[Any]


class Effect(NamedTuple):
    """An external effect: what its turn was told, its receipt, and how often the far side did it."""

    name: str
    told: Any
    outcome: str | None
    done: int


class Hold(NamedTuple):
    """A message of a queue that was handled: its key, which one, by whom, from when to when."""

    key: str
    what: Any
    agent: str
    began: float
    ended: float


@dataclass
class History:
    """What was acknowledged, and what is found when everything has come to rest."""

    acknowledged: list[tuple[str, str]] = field(default_factory=list)  # agent, message
    turns: list[Turn] = field(default_factory=list)
    epochs: dict[str, int] = field(default_factory=dict)
    owners: list[tuple[str, int, str]] = field(default_factory=list)  # agent, epoch, owner; in the order of commits
    balances: dict[str, tuple[int, int]] = field(default_factory=dict)  # by what was acknowledged, and as stored
    streams: list[Stream] = field(default_factory=list)
    piles: list[Pile] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    holds: list[Hold] = field(default_factory=list)
    unended: list[str] = field(default_factory=list)  # inbox, awaits, timers, turns, lag, that do not end
    orphans: list[str] = field(default_factory=list)  # owned by nobody who lives, children without rows, processes


def broken(history: History) -> list[str]:
    """Every law that the history breaks, with who broke it; empty for a good one."""
    laws = (_lost, _twice, _failed, _owners, _balances, _streams, _piles, _answers, _effects, _holds, _rest)
    return [found for law in laws for found in law(history)]


def _lost(history: History) -> Iterator[str]:
    handled = {(it.agent, it.message_id) for it in history.turns}
    for agent, message_id in history.acknowledged:
        if (agent, message_id) not in handled:
            yield f"lost: {message_id} to {agent} was acknowledged, and has no turn"


def _twice(history: History) -> Iterator[str]:
    for (agent, message_id), times in Counter((it.agent, it.message_id) for it in history.turns).items():
        if times > 1:
            yield f"twice: {message_id} of {agent} has {times} turns"


def _failed(history: History) -> Iterator[str]:
    """No handler of the workload fails by itself, so no turn may."""
    for turn in history.turns:
        if turn.outcome == "failed":
            yield f"failed: {turn.message_id} of {turn.agent}: {turn.problem or 'without an error'}"


def _owners(history: History) -> Iterator[str]:
    of: dict[tuple[str, int], set[str]] = {}
    by_agent: dict[str, list[int]] = {}
    for agent, epoch, owner in history.owners:
        of.setdefault((agent, epoch), set()).add(owner)
        by_agent.setdefault(agent, []).append(epoch)
    for (agent, epoch), owners in of.items():
        if len(owners) > 1:
            yield f"owners: {agent} had {sorted(owners)} in epoch {epoch}"
    for agent, epochs in by_agent.items():
        if back := [pair for pair in pairwise(epochs) if pair[1] < pair[0]]:
            yield f"owners: epochs of {agent} go back: {back}"
    for turn in history.turns:
        if turn.epoch > history.epochs.get(turn.agent, 0):
            yield f"owners: {turn.message_id} of {turn.agent} ended in epoch {turn.epoch}, which has not come"


def _balances(history: History) -> Iterator[str]:
    for name, (wanted, found) in history.balances.items():
        if wanted != found:
            yield f"balance: {name} has {found}, and by what was acknowledged {wanted}"
    if total := sum(found for _, found in history.balances.values()):
        yield f"balance: all together have {total}, and transfers add up to nothing"


def _streams(history: History) -> Iterator[str]:
    for receiver, sent, got in history.streams:
        for sender, wanted in sent.items():
            found = [value for who, value in got if who == sender]
            if found != wanted:
                yield f"order: {receiver} got of {sender} {_difference(wanted, found)}"
        if strangers := {who for who, _ in got} - set(sent):
            yield f"order: {receiver} got something of {sorted(strangers)}, who said nothing"


def _difference(wanted: list[Any], found: list[Any]) -> str:
    """In few words: what is missing, what is there more than once, or where the order breaks."""
    missing = Counter(map(repr, wanted)) - Counter(map(repr, found))
    more = Counter(map(repr, found)) - Counter(map(repr, wanted))
    if missing or more:
        return f"too few of {sorted(missing)[:9]}, too many of {sorted(more)[:9]}"
    at = next(n for n, (a, b) in enumerate(zip(wanted, found, strict=True)) if a != b)
    return f"{found[at : at + 5]} at {at}, where {wanted[at : at + 5]} was sent"


def _piles(history: History) -> Iterator[str]:
    for holder, wanted, got in history.piles:
        if sorted(map(repr, wanted)) != sorted(map(repr, got)):
            yield f"once: {holder} has {_difference(wanted, got)}"


def _answers(history: History) -> Iterator[str]:
    for await_id, allowed, outcome, result, kept in history.answers:
        if outcome is None:
            yield f"answer: {await_id} was never answered"
        elif result not in allowed:
            yield f"answer: {await_id} was {outcome} with {result!r}, and allowed are {allowed}"
        elif kept != [result]:
            yield f"answer: {await_id} was answered {result!r}, and its agent has said {kept}"


def _effects(history: History) -> Iterator[str]:
    for name, told, outcome, done in history.effects:
        if outcome is None:
            yield f"effect: {name} has no receipt"
        if done > 1:
            yield f"effect: {name} was done {done} times"
        if outcome == "succeeded" and done != 1:
            yield f"effect: {name} has succeeded, and was done {done} times"
        if outcome == "failed" and done:
            yield f"effect: {name} has failed, and was done"
        if (outcome == "succeeded") != isinstance(told, dict) or (outcome == "in_doubt") != (told == "IN_DOUBT"):
            yield f"effect: the receipt of {name} says {outcome}, and its turn was told {told!r}"


def _holds(history: History) -> Iterator[str]:
    """A key is held by one agent at a time: of two of its messages, one was over before the other was begun."""
    by_key: dict[str, list[Hold]] = {}
    for it in history.holds:
        by_key.setdefault(it.key, []).append(it)
    for key, holds in by_key.items():
        for one, next_one in pairwise(sorted(holds, key=lambda it: (it.ended, it.began))):
            if next_one.began < one.ended and one.agent != next_one.agent:
                both = f"{one.agent} ({one.what}) and {next_one.agent} ({next_one.what})"
                yield f"holder: {key} was held by {both} at once"


def _rest(history: History) -> Iterator[str]:
    yield from (f"no end: {it}" for it in history.unended)
    yield from (f"orphan: {it}" for it in history.orphans)
