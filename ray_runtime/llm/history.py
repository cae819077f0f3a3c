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
    "names, numbers and open questions. Answer with the summary alone, in at most {words} words."
)
TOKENS_A_WORD = 2
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
    """The model's summary of what goes; the one before stays when the model can not be asked, or makes none.

    One that is cut has lost what was remembered first: it is kept only where there is nothing else.
    """
    text = transcript(summary, gone, llm.history_tokens_max * CHARS_A_TOKEN)
    tokens_max = max(1, min(llm.output_tokens_max or OUTPUT_TOKENS_MAX, room // CHARS_A_TOKEN))
    words = max(1, tokens_max // TOKENS_A_WORD)
    asked = LlmRequest(
        model=llm.model,
        instructions=SUMMARISE.format(words=words),
        messages=[Said(text=text)],
        output_tokens_max=tokens_max,
    )
    try:
        answered = await ask(turn, llm, asked)
    except Refusal:
        return summary
    made = answered.text.strip()[:room]
    whole = made and answered.finish != "length"
    return made if whole else summary or made


def transcript(summary: str, exchanges: list[list[Message]], most: int) -> str:
    """A conversation as text of about so many characters: the summary whole, what tools were given and answered
    shortened, and if that is not enough, the end of what was said."""
    head = [f"Before: {summary}"] if summary else []
    room = max(0, most - sum(map(len, head)))
    messages = [message for exchange in exchanges for message in exchange]
    sizes = [len(text) for it in messages for text in _of_tools(it)]
    others = sum(len(line) + 1 for it in messages for line in _lines(it, 0))
    each = _each(sizes, max(0, room - others))
    said = "\n".join(line for it in messages for line in _lines(it, each))
    return "\n".join([*head, said[max(0, len(said) - room) :]])


def _lines(message: Message, most: int) -> list[str]:
    """What was said; of what a tool was given, or answered, no more than so many characters."""
    if isinstance(message, Said):
        return [f"User: {message.text}"]
    shown = [it if len(it) <= most else f"{it[:most]}…" for it in _of_tools(message)]
    if isinstance(message, ToolResult):
        return [f"{message.tool} answered: {shown[0]}"]
    calls = [f"You called {it.tool}: {given}" for it, given in zip(message.calls, shown, strict=True)]
    return [f"You: {message.text}", *calls] if message.text else calls


def _of_tools(message: Message) -> list[str]:
    if isinstance(message, ToolResult):
        return [message.text]
    return [orjson.dumps(it.arguments).decode() for it in message.calls] if isinstance(message, Answered) else []


def _each(sizes: list[int], room: int) -> int:
    """To how much each is cut so that all have room; those that are small stay whole."""
    for left, size in zip(range(len(sizes), 0, -1), sorted(sizes), strict=True):
        if size * left > room:
            return room // left
        room -= size
    return max(sizes, default=0)
