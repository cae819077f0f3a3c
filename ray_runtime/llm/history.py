"""What an agent remembers of its conversation, kept within a number of tokens.

Tokens are estimated, at four characters each, because every model counts its own way and a replay must
count alike. When there are too many, the oldest exchanges go, until half of the room is free: summarised by
the model itself, or dropped.
"""

from math import ceil

import orjson

from ray_runtime.sdk import Turn
from schemas.llm import OUTPUT_TOKENS_MAX, Answered, Llm, LlmRequest, Message, Said, ToolResult
from schemas.problem import Refusal

from .exchange import ask

CHARS_A_TOKEN = 4
SUMMARY_PART = 4  # of the room: as much of it as a summary may take
SUMMARISE = (
    "Summarise this conversation for yourself, so that you can go on with it. Keep what was asked, decided and found, "
    "names, numbers and open questions. Answer with the summary alone."
)
EARLIER = "What was said before, summarised:\n"


def before(summary: str, exchanges: list[list[Message]]) -> list[Message]:
    """The conversation so far, as the model is told it."""
    told: list[Message] = [Said(text=EARLIER + summary), Answered(text="I remember.")] if summary else []
    return [*told, *(message for exchange in exchanges for message in exchange)]


def tokens(messages: list[Message]) -> int:
    """How many tokens they are, estimated."""
    return ceil(sum(len(it.model_dump_json()) for it in messages) / CHARS_A_TOKEN)


async def compacted(
    turn: Turn, llm: Llm, summary: str, exchanges: list[list[Message]]
) -> tuple[str, list[list[Message]]]:
    """Summary and exchanges, within `history_tokens_max`."""
    most = llm.history_tokens_max
    if tokens(before(summary, exchanges)) <= most:
        return summary, exchanges
    kept = list(exchanges)
    while kept and tokens(before("", kept)) > most // 2:
        kept.pop(0)
    room = most // SUMMARY_PART * CHARS_A_TOKEN
    if not llm.summarise or room == 0:
        return "", kept
    return await _summary(turn, llm, summary, exchanges[: len(exchanges) - len(kept)], room), kept


async def _summary(turn: Turn, llm: Llm, summary: str, gone: list[list[Message]], room: int) -> str:
    """The model's summary of what goes; what went before stays all there is when the model can not be asked."""
    text = transcript(summary, gone)[-llm.history_tokens_max * CHARS_A_TOKEN :]
    tokens_max = max(1, min(llm.output_tokens_max or OUTPUT_TOKENS_MAX, room // CHARS_A_TOKEN))
    asked = LlmRequest(
        model=llm.model, instructions=SUMMARISE, messages=[Said(text=text)], output_tokens_max=tokens_max
    )
    try:
        answered = await ask(turn, llm, asked)
    except Refusal:
        return summary
    return answered.text[:room]


def transcript(summary: str, exchanges: list[list[Message]]) -> str:
    """A conversation as text."""
    lines = [f"Before: {summary}"] if summary else []
    for message in (it for exchange in exchanges for it in exchange):
        if isinstance(message, Answered):
            lines += [f"You: {message.text}"] if message.text else []
            lines += [f"You called {it.tool}: {orjson.dumps(it.arguments).decode()}" for it in message.calls]
        elif isinstance(message, ToolResult):
            lines.append(f"{message.tool} answered: {message.text}")
        else:
            lines.append(f"User: {message.text}")
    return "\n".join(lines)
