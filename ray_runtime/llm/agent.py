"""The handler of agents that are a model: what comes in is a prompt, and what the model answers is the reply.

The conversations are the state. One exchange is one turn: it is kept when the turn commits, and a turn that
fails leaves no trace of it.
"""

from typing import Any

import orjson
from pydantic import BaseModel, Field

from ray_runtime.sdk import Agent, Turn
from schemas.envelope import Envelope
from schemas.llm import Llm, Message

from .concluding import conclude
from .exchange import Exchange
from .history import before, compacted, tokens

CONVERSATIONS_MAX = 100
CONVERSATIONS_TOKENS_MAX = 50_000  # of all together, estimated; a state has bounds


class Conversation(BaseModel):
    """What is remembered of one conversation: a summary of what is long ago, and the exchanges since."""

    id: str = ""
    summary: str = ""
    exchanges: list[list[Message]] = Field(default_factory=list)


class Memory(Conversation):
    """What the agent remembers: what belongs to no conversation, and each of those, the last one last."""

    conversations: list[Conversation] = Field(default_factory=list)

    def of(self, conversation: str | None) -> Conversation:
        """What is remembered of a conversation; it is the last one from now on."""
        if conversation is None:
            return self
        known = next((it for it in self.conversations if it.id == conversation), None)
        last = known or Conversation(id=conversation)
        self.conversations = [*(it for it in self.conversations if it is not last), last]
        return last

    def bounded(self) -> None:
        """Forget whole conversations, the longest unused first, until all others have room in a state with the last."""
        kept = list(self.conversations)
        while len(kept) > 1 and (len(kept) > CONVERSATIONS_MAX or sum(map(_tokens, kept)) > CONVERSATIONS_TOKENS_MAX):
            kept.pop(0)
        self.conversations = kept


def _tokens(conversation: Conversation) -> int:
    return tokens(before(conversation.summary, conversation.exchanges))


class LlmAgent(Agent):
    """Answers each message by asking its model, which may use tools."""

    state: Memory

    async def on_message(self, turn: Turn, envelope: Envelope) -> Any:
        asked = envelope.data
        if envelope.capability is not None:  # it may have several
            asked = {"capability": envelope.capability, "data": envelope.data}
        return await self._answer(turn, text_of(asked), [envelope])

    async def on_reply(self, turn: Turn, reply: Envelope) -> None:
        """It makes no requests that are answered here."""

    async def on_timer(self, turn: Turn, timer: Envelope) -> None:
        told = {"timer": timer.subject, "at": timer.scheduledat or timer.time, "data": timer.data}
        await self._answer(turn, text_of(told), [timer])

    async def on_batch(self, turn: Turn, envelopes: list[Envelope]) -> None:
        await self._answer(turn, "\n\n".join(text_of(it.data) for it in envelopes), envelopes)

    async def _answer(self, turn: Turn, prompt: str, told: list[Envelope]) -> Any:
        llm = Llm.model_validate(self.config)
        memory = self.state.of(told[0].conversationid)
        # Before, because there may be less room than there was; after, because a state has bounds.
        summary, earlier = await compacted(turn, llm, memory.summary, memory.exchanges)
        exchange = Exchange(turn, llm, before(summary, earlier), told[0].deadline)
        answer = await exchange.answer(prompt)
        conclude(turn, answer, told, exchange.called)
        exchanges = [*earlier, exchange.messages]
        memory.summary, memory.exchanges = await compacted(turn, llm, summary, exchanges)
        self.state.bounded()
        return answer


def text_of(data: Any) -> str:
    """What the model is told: text as it is, anything else as JSON."""
    return data if isinstance(data, str) else orjson.dumps(data, option=orjson.OPT_SORT_KEYS).decode()
