"""The questions to a person that a call leads to: those of the agent that was asked, and of whom that waits for.

All is read and answered by operations of the catalogue, under the rights of who calls. An agent that waits for a person
holds its inbox, so each open question of it stands before the answer, whoever caused it; all of them are found.
"""

from contextlib import suppress
from typing import Any, cast

from mcp_server.callers import Caller
from schemas.principal import Principal
from schemas.problem import Refusal
from schemas.question import QuestionView

POLL_S = 20.0
AGENTS_MAX = 20
QUESTIONS_MAX = 8
AGAIN = ("INVALID_VALUE", "NOT_READY", "QUOTA")


class OpenQuestions:
    """Those that stand before one agent's answer."""

    def __init__(self, call: Caller, read: Caller, principal: Principal, namespace: str, name: str) -> None:
        """`read` waits beside a call, and is not counted as another one."""
        self._call, self._read, self._principal = call, read, principal
        self._namespace, self._name = namespace, name

    async def cursor(self) -> str:
        """Where `changed` goes on from."""
        brief = cast(Any, await self._read(self._principal, "system.brief", {}))
        return str(brief.cursor)

    async def changed(self, cursor: str) -> str:
        """Wait until a question is asked or answered, or for a while; the cursor to go on from."""
        given = {"after": cursor, "wait_s": POLL_S, "filter": {"types": ["question.*"]}}
        page = cast(Any, await self._read(self._principal, "feedback.read", given))
        return str(page.cursor)

    async def open(self) -> dict[str, QuestionView]:
        """The open ones by id, the nearest agent's first, a few of each agent."""
        found: dict[str, QuestionView] = {}
        if not await self._questions({"limit": 1}):  # of no agent that this principal sees, wherever it is
            return found
        seen = {(self._namespace, self._name)}
        coming = list(seen)
        while coming:
            namespace, name = coming.pop(0)
            named = {"namespace": namespace, "agent": name, "limit": QUESTIONS_MAX}
            with suppress(Refusal):  # it is of a namespace that this principal does not see: the others still are
                found |= {it.question_id: it for it in await self._questions(named)}
            for address in await self._waits_for(namespace, name):
                if address not in seen and len(seen) < AGENTS_MAX:
                    seen.add(address)
                    coming.append(address)
        return found

    async def answer(self, principal: Principal, question_id: str, content: Any) -> str | None:
        """Answer as who said it; what is wrong with the answer, if it may be given once more."""
        given = content.get("answer") if isinstance(content, dict) else None
        if not isinstance(given, str):
            return "an answer is a text"
        try:
            await self._read(principal, "questions.answer", {"question_id": question_id, "answer": given})
        except Refusal as refusal:  # of the others: somebody was first, or this principal may not
            return refusal.problem.detail if refusal.problem.reason in AGAIN else None
        return None

    async def _questions(self, given: dict[str, Any]) -> list[QuestionView]:
        page = cast(Any, await self._read(self._principal, "questions.list", given))
        return list(page.items)

    async def _waits_for(self, namespace: str, name: str) -> list[tuple[str, str]]:
        """The agents that an agent has asked and not heard of."""
        try:
            named = {"namespace": namespace, "name": name}
            inside = cast(Any, await self._read(self._principal, "agents.inspect", named))
        except Refusal:  # it is of another namespace, or has gone meanwhile
            return []
        asked = [it.on.rpartition("/") for it in inside.waiting_on if it.kind == "ask"]
        return [(whose or namespace, agent) for whose, _, agent in asked]
