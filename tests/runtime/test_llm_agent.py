"""Agents that are a model, run by the real engine with the model's answers given; every turn is replayed."""

from datetime import timedelta
from typing import Any

import orjson
import pytest

from controlplane.resources.problems import refuse as catalogued
from ray_runtime import testing
from ray_runtime.llm import LlmAgent
from ray_runtime.llm.agent import CONVERSATIONS_MAX, Memory
from ray_runtime.llm.exchange import BUSY_MAX, RESULT_CHARS_MAX
from ray_runtime.llm.history import tokens
from ray_runtime.problems import refuse

TOOLS = [
    {"name": "cpu", "effect": "machine.read", "fixed": {"what": "cpu"}},
    {"name": "friend", "agent": "echo", "description": "asks a friend"},
]
OUTPUT = {"type": "object", "properties": {"n": {"type": "integer"}}}


class Model:
    """Answers from a list, and keeps what it was asked."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, Any]] = []

    def __call__(self, arguments: dict[str, Any]) -> Any:
        self.asked.append(arguments)
        return self.answers.pop(0)


def says(text: str = "", *calls: tuple[str, Any], fault: str = "", finish: str = "stop") -> dict[str, Any]:
    made = [{"id": f"c{n}", "tool": tool, "arguments": given, "fault": fault} for n, (tool, given) in enumerate(calls)]
    usage = {"tokens_in": 1, "tokens_out": 1}
    return {"text": text, "calls": made, "finish": finish, "model": "m", "usage": usage}


def run(
    model: Model, data: Any = "hi", *, state: Any = None, answers: Any = None, within: str | None = None, **llm: Any
) -> testing.Tested:
    config, known = {"connection": "model", "model": "m", **llm}, {"llm.request": model, **(answers or {})}
    return testing.run_turn(LlmAgent, data, state=state, config=config, answers=known, conversationid=within)


def told(model: Model) -> list[dict[str, Any]]:
    """The messages of the last request."""
    found: list[dict[str, Any]] = model.asked[-1]["messages"]
    return found


def test_text_is_the_reply_and_the_conversation_goes_on() -> None:
    """What was said before is told to the model; what is no text is told as JSON."""
    model = Model(says("hello"), says("again"))
    first = run(model)
    assert first.reply == "hello"
    second = run(model, {"b": 1, "a": 2}, state=first.state)
    assert second.reply == "again"
    assert [it["text"] for it in told(model)] == ["hi", "hello", '{"a":2,"b":1}']


def test_conversations_are_remembered_each_apart() -> None:
    """And apart from what belongs to none; the last one used is the last to be forgotten."""
    model = Model(*(says(f"a{number}") for number in range(5)))
    state = None
    for data, within in (("one", "c1"), ("two", "c2"), ("none", None), ("more", "c1")):
        state = run(model, data, state=state, within=within).state
    assert [it["text"] for it in told(model)] == ["one", "a0", "more"]
    assert [(it.id, len(it.exchanges)) for it in state.conversations] == [("c2", 1), ("c1", 2)]
    run(model, "again", state=state)
    assert [it["text"] for it in told(model)] == ["none", "a2", "again"]


@pytest.mark.parametrize(
    ("conversations", "characters", "kept"), [(CONVERSATIONS_MAX, 1, CONVERSATIONS_MAX), (12, 19_500, 11)]
)
def test_the_conversations_that_are_longest_unused_are_forgotten(
    conversations: int, characters: int, kept: int
) -> None:
    """By number and by size, so that a state keeps its bounds."""
    said = [[{"role": "user", "text": "x" * characters}]]
    state = {"conversations": [{"id": f"c{number}", "exchanges": said} for number in range(conversations)]}
    found = run(Model(says("fine")), state=state, within="new").state.conversations
    assert (found[-1].id, found[-2].id) == ("new", f"c{conversations - 1}")
    assert len(found) == kept


def test_calls_are_effects_and_questions_and_what_they_come_to_is_told() -> None:
    """Fixed arguments win; an agent's answer, a refusal, an unknown tool and unusable arguments are all results."""
    calls = [("cpu", {"what": "disks"}), ("friend", {"data": 7}), ("nothing", {}), ("cpu", {"connection": "x"})]
    model = Model(says("let me see", *calls), says("", ("cpu", {}), fault="no JSON"), says("done"))
    replies = {"machine.read": refuse("INVALID_VALUE", "not today"), "default/echo": {"seven": True}}
    found = run(model, answers=replies, tools=TOOLS)
    assert found.reply == "done"
    effect = found.of("effect")[1]
    assert (effect["effect"], effect["connection"], effect["arguments"]) == ("machine.read", None, {"what": "cpu"})
    results = [it for it in told(model) if it["role"] == "tool"]
    assert [it["failed"] for it in results] == [True, False, True, True, True]
    assert orjson.loads(results[0]["text"])["detail"] == "not today"
    assert results[1]["text"] == '{"seven":true}'
    assert "no tool nothing" in results[2]["text"]
    assert orjson.loads(results[3]["text"])["field"] == "/arguments/connection"
    assert results[4]["text"] == "no JSON"
    offers = model.asked[0]["tools"]
    assert [(it["effect"], it["fixed"]) for it in offers] == [("machine.read", ["what"]), (None, [])]
    assert offers[1]["parameters"]["required"] == ["data"]


def test_a_person_is_asked() -> None:
    """The turn waits for a person as long as it takes; what was answered is told to the model."""
    asked = {"question": "Deploy?", "choices": ["yes", "no"]}
    model = Model(says("", ("boss", asked)), says("", ("boss", {"question": ""})), says("done"))
    found = run(model, tools=[{"name": "boss", "person": True}], answers={"ask_human": "no"})
    assert found.reply == "done"
    assert [it["question"] for it in found.of("question")] == ["Deploy?"]
    assert [(it["text"][:3], it["failed"]) for it in told(model) if it["role"] == "tool"] == [
        ("no", False),
        ('{"r', True),
    ]
    assert model.asked[0]["tools"][0]["parameters"]["required"] == ["question"]


def test_agents_alone_are_asked_at_once() -> None:
    """The turn parks once for all of them, and tells what each came to in the order of the calls."""
    tools = [{"name": name, "agent": name} for name in ("ann", "bob")]
    model = Model(says("", ("ann", {"data": 1}), ("bob", {"data": 2})), says("done"))
    found = run(model, tools=tools, answers={"default/ann": "one", "default/bob": refuse("INVALID_VALUE", "no")})
    assert found.reply == "done"
    assert len(found.of("gather")) == 1
    assert [(it["text"][:3], it["failed"]) for it in told(model) if it["role"] == "tool"] == [
        ("one", False),
        ('{"r', True),
    ]


def test_a_structured_answer_is_the_reply_and_a_wrong_one_is_asked_for_again() -> None:
    """Text and what does not meet the schema are told why; beside the answer nothing else is called."""
    wrong = says("", ("final_answer", {"n": "x"}), fault="$.n: 'x' is not of type 'integer'")
    model = Model(says("five"), wrong, says("", ("cpu", {}), ("final_answer", {"n": 5})))
    found = run(model, output=OUTPUT, tools=TOOLS)
    assert found.reply == {"n": 5}
    assert [it["effect"] for it in found.of("effect")] == ["llm.request"] * 3
    assert told(model)[2]["text"] == "Answer by calling final_answer."
    assert told(model)[4]["text"] == "$.n: 'x' is not of type 'integer'"
    assert [it.text for it in found.state.exchanges[0][-2:]] == [
        "It was not called: there is an answer already.", "This is the answer.",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("answers", "llm", "reason"),
    [
        ([says("no")] * 2, {"output": OUTPUT, "output_retries_max": 1}, "OUTPUT_MISMATCH"),
        ([says("", ("nothing", {}))] * 3, {"requests_max": 3}, "LIMIT_REACHED"),
        ([says("half an ans", finish="length")], {}, "LIMIT_REACHED"),
    ],
)
def test_what_leads_nowhere_ends(answers: list[dict[str, Any]], llm: dict[str, Any], reason: str) -> None:
    """Retries and requests are counted, and half an answer is none."""
    model = Model(*answers)
    found = run(model, **llm)
    assert found.problem is not None
    assert (found.problem.reason, model.answers) == (reason, [])


def test_a_model_that_can_not_be_asked_fails_the_turn() -> None:
    """The refusal is the turn's."""

    def broken(_: Any) -> Any:
        raise refuse("INVALID_VALUE", "no such model")

    found = testing.run_turn(LlmAgent, "hi", config={"connection": "c", "model": "m"}, answers={"llm.request": broken})
    assert found.problem is not None
    assert found.problem.detail == "no such model"


def test_a_long_result_is_cut_and_says_so() -> None:
    """A model is told how much there was."""
    model = Model(says("", ("cpu", {})), says("done"))
    run(model, answers={"machine.read": "x" * (RESULT_CHARS_MAX + 1)}, tools=TOOLS)
    assert told(model)[-1]["text"].endswith(f"(cut off here; it has {RESULT_CHARS_MAX + 1} characters)")


def talk(exchanges: int) -> Memory:
    made = [
        [{"role": "user", "text": f"q{n} " + "x" * 500}, {"role": "assistant", "text": f"a{n}"}]
        for n in range(exchanges)
    ]
    return Memory.model_validate({"exchanges": made})


ROOM = tokens([it for one in talk(8).exchanges for it in one])  # for eight exchanges, and none more


def test_what_is_too_old_is_summarised() -> None:
    """The oldest exchanges go until half of the room is free; the summary leads the next conversation."""
    model = Model(says("fine"), says("they counted"), says("yes"))
    found = run(model, state=talk(8), history_tokens_max=ROOM)
    assert found.state.summary == "they counted"
    assert model.asked[1]["output_tokens_max"] == ROOM // 4, "no more than there is room for"
    assert 0 < len(found.state.exchanges) < 8
    assert tokens([it for one in found.state.exchanges for it in one]) <= ROOM // 2
    assert found.state.exchanges[-1][-1].text == "fine"
    assert told(model)[0]["text"].startswith("User: q0 ")
    run(model, state=found.state)
    assert told(model)[0]["text"] == "What was said before, summarised:\nthey counted"


def test_less_room_than_before_is_made_before_the_model_is_asked() -> None:
    """So a conversation that has become too long for its model does not stand in its own way."""
    model = Model(says("in short"), says("fine"))
    found = run(model, state=talk(8), history_tokens_max=ROOM // 2)
    assert model.asked[0]["instructions"].startswith("Summarise")
    assert told(model)[0]["text"].endswith("in short")
    assert (found.reply, found.state.summary) == ("fine", "in short")


@pytest.mark.parametrize(("most", "summarise", "left"), [(ROOM, False, 4), (0, True, 0)])
def test_without_a_summary_it_is_dropped(most: int, summarise: bool, left: int) -> None:
    """Nothing more is asked of the model."""
    model = Model(says("fine"))
    found = run(model, state=talk(8), history_tokens_max=most, summarise=summarise)
    assert (found.state.summary, len(found.state.exchanges), len(model.asked)) == ("", left, 1)


def test_a_summary_that_fails_costs_what_is_old_and_not_the_answer() -> None:
    """The turn is answered all the same."""
    answers = iter([says("fine"), refuse("INVALID_VALUE", "no more")])

    def model(_: Any) -> Any:
        found = next(answers)
        if isinstance(found, Exception):
            raise found
        return found

    config = {"connection": "c", "model": "m", "history_tokens_max": ROOM}
    found = testing.run_turn(LlmAgent, "hi", state=talk(8), config=config, answers={"llm.request": model})
    assert found.reply == "fine"
    assert 0 < len(found.state.exchanges) < 8


def test_times_and_batches_are_one_prompt() -> None:
    """A timer wakes the model with its name; of a batch it hears everything at once."""
    model = Model(says("tick"), says("all"))
    config = {"connection": "c", "model": "m"}
    testing.run_turn(LlmAgent, 1, trigger="timer", subject="watch:daily", config=config, answers={"llm.request": model})
    assert orjson.loads(told(model)[0]["text"])["timer"] == "watch:daily"
    testing.run_turn(LlmAgent, ["a", {"b": 1}], trigger="batch", config=config, answers={"llm.request": model})
    assert told(model)[0]["text"] == 'a\n\n{"b":1}'


CITING = {
    "type": "object",
    "properties": {"fault": {"type": "string"}, "because": {"type": "array"}, "confidence": {"type": "number"}},
}


def test_what_was_cited_is_told_apart_from_what_was_seen() -> None:
    """An answer names tools or calls; the message, and what it does not name, was merely seen."""
    said = {"fault": "disk", "because": ["friend", "a hunch"], "confidence": 0.8, "alternatives": ["cpu"]}
    model = Model(says("", ("cpu", {}), ("friend", {"data": 7})), says("", ("final_answer", said)))
    found = run(model, answers={"machine.read": 1, "default/echo": "full"}, tools=TOOLS, output=CITING)
    (concluded,) = found.of("conclude")
    assert orjson.loads(concluded["text"]) == said
    assert (concluded["because"], concluded["seen"]) == (["turn_1:0:2"], ["msg_1", "turn_1:0:1"])
    assert (concluded["confidence"], concluded["alternatives"]) == (0.8, ["cpu"])


def test_text_concludes_with_all_of_it_seen_and_an_empty_answer_concludes_nothing() -> None:
    """Who names nothing has cited nothing."""
    tools = [{"name": name, "agent": name} for name in ("ann", "bob")]
    model = Model(says("", ("ann", {"data": 1}), ("bob", {"data": 2})), says("do\x00ne"), says(""))
    found = run(model, tools=tools, answers={"default/ann": "one", "default/bob": "two"})
    (concluded,) = found.of("conclude")
    assert (concluded["text"], concluded["because"]) == ("done", [])
    assert concluded["seen"] == ["msg_1", "turn_1:0:1", "turn_1:0:2"]
    assert run(model).of("conclude") == []


def busy(after_s: float | None) -> Any:
    return catalogued("EFFECT_FAILED", "model takes no request now", retry_after_s=after_s)


def test_a_model_that_says_when_is_asked_again_then() -> None:
    """The turn parks for so long, and no more often than so often; a deadline before that ends it at once."""
    model = Model(busy(3600), says("at last"))
    found = run(model)
    assert found.reply == "at last"
    assert found.of("sleep") == [{"seconds": 3600.0}]
    assert model.asked[0] == model.asked[1]
    never = run(Model(*[busy(5)] * BUSY_MAX))
    assert (never.problem is not None, len(never.of("sleep"))) == (True, BUSY_MAX - 1)


def test_one_that_does_not_say_when_is_not_waited_for() -> None:
    """Nor is anybody whose answer would come too late."""
    config = {"connection": "model", "model": "m"}
    soon = testing.STARTED + timedelta(minutes=1)
    for after_s, deadline in ((None, None), (3600, soon)):
        answers = {"llm.request": Model(busy(after_s))}
        found = testing.run_turn(LlmAgent, "hi", config=config, answers=answers, deadline=deadline)
        assert (found.problem is not None, found.of("sleep")) == (True, [])
