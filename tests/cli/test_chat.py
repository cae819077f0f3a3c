"""`steward chat` against a stand-in: lines in, answers out, parts as they come, questions answered in place."""

import threading
from typing import Any

import pytest

from schemas.base import turn_of
from tests.cli.conftest import Steward
from tests.cli.standin import StandIn

UID = "agent_1"


def agent(stream: str | None = None) -> dict[str, Any]:
    llm = None if stream is None else {"stream": stream}
    return {"metadata": {"uid": UID, "namespace": "default", "name": "doctor"}, "spec": {"llm": llm}}


def part(number: int, text: str, *, turn: str, attempt: str = "attempt_1", done: bool = False) -> dict[str, Any]:
    return {
        "type": "steward.part",
        "data": {"turn_id": turn, "attempt": attempt, "part": number, "text": text, "done": done},
    }


class Doctor:
    """Answers the second time that it is asked, when its question was answered; its channel has parts meanwhile."""

    def __init__(self, plane: StandIn, *, stream: bool = False, question: bool = False) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answered = threading.Event()
        turn = turn_of(UID, "msg_1")
        self.parts = [part(0, "it is ", turn=turn), part(0, "not this", turn="turn_2"), part(1, "late", turn=turn)]
        self.question = question
        if not question and not stream:
            self.answered.set()
        plane.answers |= {
            "agents.get": agent("parts" if stream else None),
            "agents.ask": self.ask,
            "questions.list": self.questions,
            "questions.answer": self.answer,
            "channels.read": self.read,
        }

    def ask(self, given: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(given)
        if len(self.asked) > 1:
            self.answered.wait(20)
        whole = len(self.asked) > 1 or self.answered.is_set()
        return {"message_id": "msg_1", "answered": whole, "reply": "it is late" if whole else None}

    def questions(self, _: dict[str, Any]) -> dict[str, Any]:
        choices = ["yes", "no"]
        one = {"question_id": "await_1", "question": "Clean up?", "choices": choices}
        return {"items": [one] if self.question else [], "next_page": None}

    def answer(self, given: dict[str, Any]) -> dict[str, Any]:
        self.question = False
        self.answered.set()
        return given

    def read(self, given: dict[str, Any]) -> dict[str, Any]:
        told, self.parts = self.parts, []
        if not told:
            self.answered.set()
        return {"envelopes": told, "cursor": "1"}


def test_each_line_is_asked_within_one_conversation(plane: StandIn, script: Steward) -> None:
    """Not at a terminal: answers alone are printed, and the end of the input ends it."""
    doctor = Doctor(plane)
    ran = script("chat", "doctor", "--url", plane.url, stdin=b"what time is it?\n\nagain\n")
    assert (ran.code, ran.out, ran.err) == (0, "it is late\nit is late\n", "")
    first, second = doctor.asked
    assert (first["data"], second["data"], first["name"]) == ("what time is it?", "again", "doctor")
    assert first["conversation"] == second["conversation"]
    assert first["request_id"] != second["request_id"]


def test_a_question_is_asked_here_and_its_answer_given_by_number(plane: StandIn, script: Steward) -> None:
    doctor = Doctor(plane, question=True)
    ran = script("chat", "doctor", "--url", plane.url, "--conversation", "c1", stdin=b"help\n2\n")
    assert ran.out == "? Clean up? [yes | no]\nit is late\n"
    assert plane.inputs("questions.answer") == [{"question_id": "await_1", "answer": "no"}]
    assert {it["conversation"] for it in doctor.asked} == {"c1"}
    assert len({it["request_id"] for it in doctor.asked}) == 1  # it is one question, however often it is waited for


def test_parts_are_shown_while_they_come_and_not_twice(plane: StandIn, script: Steward) -> None:
    Doctor(plane, stream=True)
    ran = script("chat", "doctor", "--url", plane.url, stdin=b"what time is it?\n")
    assert ran.out == "it is late\n"


def test_a_channel_that_is_not_there_yet_has_no_parts(plane: StandIn, script: Steward) -> None:
    """It is made by the first part, if one comes before the answer; the answer is shown in any case."""
    from controlplane.resources.problems import problem

    doctor = Doctor(plane, stream=True)
    looks: list[dict[str, Any]] = []

    def read(given: dict[str, Any]) -> Any:
        looks.append(given)
        return problem("NOT_FOUND", "there is no such channel") if len(looks) < 3 else doctor.read(given)

    plane.answers["channels.read"] = read
    ran = script("chat", "doctor", "--url", plane.url, stdin=b"what time is it?\n")
    assert (ran.code, ran.out, ran.err) == (0, "it is late\n", "")
    doctor.answered.set()
    looks.clear()
    ran = script("chat", "doctor", "--url", plane.url, stdin=b"what time is it?\n")
    assert (ran.code, ran.out, ran.err) == (0, "it is late\n", "")


def test_the_end_of_the_input_leaves_a_question_open(plane: StandIn, script: Steward) -> None:
    Doctor(plane, question=True)
    ran = script("chat", "doctor", "--url", plane.url, stdin=b"help\n")
    assert (ran.code, plane.inputs("questions.answer")) == (0, [])


def test_a_refusal_is_shown_and_the_conversation_goes_on(plane: StandIn, script: Steward) -> None:
    from controlplane.resources.problems import problem

    doctor = Doctor(plane)

    def ask(given: dict[str, Any]) -> Any:
        return problem("TURN_FAILED", "it broke") if given["data"] == "break" else doctor.ask(given)

    plane.answers["agents.ask"] = ask
    ran = script("chat", "doctor", "--url", plane.url, stdin=b"break\ngo on\n")
    assert ran.code == 0
    assert "it broke" in ran.out + ran.err
    assert "it is late" in ran.out


@pytest.mark.parametrize("name", ["Nobody!", "a/b/c"])
def test_who_is_not_there_is_refused(plane: StandIn, script: Steward, name: str) -> None:
    from controlplane.resources.problems import problem

    plane.answers["agents.get"] = problem("NOT_FOUND", "there is no such agent")
    assert script("chat", name, "--url", plane.url, stdin=b"hi\n").code == 1
