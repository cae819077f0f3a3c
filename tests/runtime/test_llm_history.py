"""What an agent that is a model remembers of long ago: a summary is lost to nothing but a better one."""

from typing import Any

import pytest

from ray_runtime.llm.agent import Memory
from ray_runtime.llm.history import tokens, transcript
from schemas.llm import Answered, Message, Said, ToolCall, ToolResult
from tests.runtime.test_llm_agent import Model, run, says

BEFORE = "the key lies under the mat"


def talk(exchanges: int = 8, summary: str = BEFORE) -> Memory:
    made = [
        [{"role": "user", "text": f"q{n} " + "x" * 500}, {"role": "assistant", "text": f"a{n}"}]
        for n in range(exchanges)
    ]
    return Memory.model_validate({"summary": summary, "exchanges": made})


ROOM = tokens([it for one in talk().exchanges for it in one])


@pytest.mark.parametrize("summary", [says(""), says(" \n"), says("the key l", finish="length")])
def test_a_summary_that_is_none_leaves_the_one_before(summary: dict[str, Any]) -> None:
    """Empty or cut: what was remembered is worth more."""
    model = Model(summary, says("fine"))
    found = run(model, state=talk(), history_tokens_max=ROOM)
    assert (found.reply, found.state.summary) == ("fine", BEFORE)
    assert model.asked[1]["messages"][0]["text"].endswith(BEFORE)


def test_a_summary_that_is_cut_is_more_than_nothing() -> None:
    """Where nothing was summarised before."""
    model = Model(says("fine"), says("they count", finish="length"))
    assert run(model, state=talk(summary=""), history_tokens_max=ROOM).state.summary == "they count"


def test_the_summary_before_is_told_whole_whatever_tools_have_answered() -> None:
    """And so is the prompt: results are shortened first, the long ones, and how long a summary may be is said."""
    results = [{"role": "tool", "id": f"c{n}", "tool": "cpu", "text": "y" * 3000} for n in range(3)]
    short = {"role": "tool", "id": "c3", "tool": "disk", "text": "all is well"}
    calls = [{"id": f"c{n}", "tool": "cpu", "arguments": {}} for n in range(4)]
    exchange = [{"role": "user", "text": "how is it?"}, {"role": "assistant", "calls": calls}, *results, short]
    state = Memory.model_validate({"summary": BEFORE, "exchanges": [exchange]})
    model = Model(says("in short"), says("fine"))
    found = run(model, state=state, history_tokens_max=500)
    assert found.state.summary == "in short"
    asked = model.asked[0]
    (said,) = asked["messages"]
    lines = said["text"].split("\n")
    assert len(said["text"]) <= 500 * 4
    assert lines[:2] == [f"Before: {BEFORE}", "User: how is it?"]
    assert lines[-1] == "disk answered: all is well"
    assert len([it for it in lines if it.startswith("cpu answered: yyy") and it.endswith("y…")]) == 3
    assert asked["instructions"].endswith(f"in at most {asked['output_tokens_max'] // 2} words.")


@pytest.mark.parametrize(
    ("most", "told"),
    [
        (1000, 'Before: long ago\nUser: 0123456789\nYou called t: {"a":"bcdef"}\nt answered: ghijkl'),
        (69, 'Before: long ago\nUser: 0123456789\nYou called t: {"a…\nt answered: ghi…'),
        (40, "Before: long ago\nalled t: …\nt answered: …"),
        (16, "Before: long ago\n"),
        (3, "Before: long ago\n"),
    ],
)
def test_what_does_not_fit_is_cut_in_that_order(most: int, told: str) -> None:
    """What tools were given and answered, then the beginning of what was said; the summary never."""
    messages: list[Message] = [
        Said(text="0123456789"),
        Answered(calls=[ToolCall(id="c", tool="t", arguments={"a": "bcdef"})]),
        ToolResult(id="c", tool="t", text="ghijkl"),
    ]
    assert transcript("long ago", [messages], most) == told
