"""A writer without a gate: the committer in this very process.

For tools and tests that have the database to themselves. Beside a running gate it would be a second
writer: safe, because each commit is fenced, and slow for both. `write` answers like the gate does:
False is a conflict; a refusal says why nothing was written.
"""

import asyncio

from controlplane.resources.problems import problem, refuse
from controlplane.store.batching import Job
from controlplane.store.committer import Committer
from controlplane.store.unit import Statement
from schemas.problem import Refusal

RETRY_AFTER_S = 1.0
Answered = asyncio.Future[tuple[str, str]]


class DirectWriter:
    """Writes through a committer of its own; close it."""

    def __init__(self, url: str) -> None:
        self.committer = Committer(url)
        self.committer.start()

    async def write(self, statements: list[Statement], lane: int = 1) -> bool:
        loop = asyncio.get_running_loop()
        answered: Answered = loop.create_future()

        def done(outcome: str, detail: str) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(_answer, answered, outcome, detail)

        self.committer.submit(Job(statements, done, lane))
        outcome, detail = await answered
        if outcome == "error":
            raise refused(detail)
        return outcome == "ok"

    def close(self) -> None:
        self.committer.stop()


def _answer(answered: Answered, outcome: str, detail: str) -> None:
    if not answered.done():
        answered.set_result((outcome, detail))


def refused(detail: str) -> Refusal:
    """The refusal of a job that ended in error; its detail is `REASON: text`."""
    reason, _, text = detail.partition(": ")
    if reason == "IN_DOUBT":
        found = problem(reason, text, cause=text)
        return Refusal(found.model_copy(update={"changed": "unknown", "retry_after_s": RETRY_AFTER_S}))
    waits = reason in ("NOT_READY", "STORAGE_FULL")
    return refuse(reason, f"nothing was written: {text}", retry_after_s=RETRY_AFTER_S if waits else None, cause=text)
