"""`steward chat`: a conversation with one agent, line by line.

Each line is a question to the agent, all of one conversation, so that an agent that is a model remembers it apart from
others. Until it answers, what it tells meanwhile is shown as it comes (the parts of a model's answer, where its spec
names a channel for them), and what it asks of a person is asked here, and answered by the next line. Ctrl-D and
Ctrl-C end the conversation; a question that is open by then stays open, and an answer is kept.
"""

import sys
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from controlplane.cli.generated import named
from controlplane.cli.printing import clean
from controlplane.cli.session import Session, command
from schemas.base import fresh_id, turn_of
from schemas.problem import Problem, Refusal

app = typer.Typer()
LOOK_S = 1.0
PATIENCE_S = 60.0
AT_ONCE_S = 0.2
SHOWN_MAX = 100
PAGE = 500


@command(app, "chat")
def chat(
    session: Session,
    name: Annotated[str, typer.Argument(help="The agent, or namespace/agent.", metavar="NAME")],
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", metavar="TEXT")] = None,
    conversation: Annotated[
        str | None, typer.Option(metavar="ID", help="Go on with a conversation; a new one is begun without it.")
    ] = None,
) -> None:
    """Talk with an agent: a line in, its answer out, until Ctrl-D. It may ask back."""
    given = named({"name": name, **({"namespace": namespace} if namespace else {})})
    talk = Talk(session, given, session.call("agents.get", given), conversation or f"chat_{uuid.uuid4().hex[:20]}")
    told = talk.person.terminal and session.output not in ("json", "yaml")
    if told:
        session.say(f"Talking with {name}; conversation {talk.conversation}. Ctrl-D ends it.", "plain")
    try:
        for line in talk.person.lines():
            talk.say(line)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


class Person:
    """Whoever sits at the terminal, or what stands in a file."""

    def __init__(self) -> None:
        self.terminal = sys.stdin.isatty() and sys.stdout.isatty()

    def lines(self) -> Iterator[str]:
        """What is said, without empty lines, until the end of the input."""
        while (line := self.line("> ")) is not None:
            if line:
                yield line

    def line(self, prompt: str) -> str | None:
        """The next line; None at the end of the input."""
        try:
            if self.terminal:
                return input(prompt).strip()
        except EOFError:
            print(flush=True)
            return None
        line = sys.stdin.readline()
        return line.strip() if line else None


class Talk:
    """One conversation."""

    def __init__(self, session: Session, given: dict[str, Any], agent: dict[str, Any], conversation: str) -> None:
        self.conversation = conversation
        self.person = Person()
        self._session = session
        self._agent = given
        self._uid = agent["metadata"]["uid"]
        stream = (agent["spec"].get("llm") or {}).get("stream")
        self._parts = Parts(session, agent["metadata"]["namespace"], stream) if stream else None
        self._shown: set[str] = set()

    def say(self, line: str) -> None:
        """Ask, and show what comes until there is an answer. A refusal is shown, and ends nothing."""
        request_id = fresh_id("req", time.time())
        asked = {**self._agent, "data": line, "conversation": self.conversation, "request_id": request_id}
        try:
            answer = self._session.call("agents.ask", {**asked, "timeout_s": AT_ONCE_S})
            shown = ""
            if not answer["answered"]:
                answer, shown = self._wait(asked, turn_of(self._uid, answer["message_id"]))
        except Refusal as refusal:
            self._session.refuse(refusal.problem)
            return
        if not isinstance(answer["reply"], str) or not shown.endswith(answer["reply"]) or not shown:
            self._show(answer["reply"])

    def _wait(self, asked: dict[str, Any], turn_id: str) -> tuple[dict[str, Any], str]:
        """The answer, and what of it was shown while it came."""
        waiting = Waiting(self._session, {**asked, "timeout_s": PATIENCE_S})
        if self._parts is not None:
            self._parts.begin(turn_id)
        while not waiting.over(0.0 if self._parts is not None and self._parts.there else LOOK_S):
            if self._parts is not None:
                self._parts.show(LOOK_S)
            self._ask_back()
        shown = self._parts.end() if self._parts is not None else ""
        if waiting.refused is not None:
            raise Refusal(waiting.refused)
        assert waiting.answer is not None
        return waiting.answer, shown

    def _ask_back(self) -> None:
        """Questions of the agent to a person: it waits for nothing else, so they are answered first."""
        found = self._session.call(
            "questions.list", {"agent": self._agent["name"], **self._within(), "limit": SHOWN_MAX}
        )
        for question in found["items"]:
            if question["question_id"] not in self._shown:
                self._shown.add(question["question_id"])
                self._answer(question)

    def _answer(self, question: dict[str, Any]) -> None:
        choices = question["choices"]
        print(clean(f"? {question['question']}" + (f" [{' | '.join(choices)}]" if choices else "")), flush=True)
        while (line := self.person.line("? ")) is not None:
            if choices and line not in choices and line.isdecimal() and 0 < int(line) <= len(choices):
                line = choices[int(line) - 1]
            try:
                self._session.call("questions.answer", {"question_id": question["question_id"], "answer": line})
            except Refusal as refusal:
                self._session.refuse(refusal.problem)
                if refusal.problem.reason != "INVALID_VALUE":
                    return
            else:
                return
        raise typer.Exit(0)  # the end of the input; the question stays open

    def _within(self) -> dict[str, Any]:
        return {"namespace": self._agent.get("namespace", "default")}

    def _show(self, reply: Any) -> None:
        if isinstance(reply, str) and self._session.output is None:
            print(clean(reply), flush=True)
        else:
            self._session.show(reply)


class Waiting(threading.Thread):
    """Asks until there is an answer; the same request id is the same question, however often."""

    def __init__(self, session: Session, asked: dict[str, Any]) -> None:
        super().__init__(daemon=True)
        self.answer: dict[str, Any] | None = None
        self.refused: Problem | None = None
        self._plane, self._asked = session.plane, asked
        self._over = threading.Event()
        self.start()

    def over(self, wait_s: float) -> bool:
        return self._over.wait(wait_s)

    def run(self) -> None:
        try:
            while True:
                answer = self._plane.call("agents.ask", self._asked)
                if answer["answered"]:
                    self.answer = answer
                    return
        except Refusal as refusal:
            self.refused = refusal.problem
        finally:
            self._over.set()


class Parts:
    """The text of a model's answer while it comes, from the channel that its spec names."""

    def __init__(self, session: Session, namespace: str, channel: str) -> None:
        self._session = session
        self._given = {"namespace": namespace, "name": channel}
        self.there = True  # that it is not, one finds by reading; the first part makes it
        self._cursor: str | None = None
        self._turn = ""
        self._attempt = ""
        self._text = ""

    def begin(self, turn_id: str) -> None:
        """Show the parts of this turn, and of no other."""
        self._turn, self._attempt, self._text = turn_id, "", ""

    def show(self, wait_s: float) -> None:
        """What has come, after a wait for it: a page, or all pages of what is there already."""
        while True:
            page = self._read(wait_s)
            if page is None:
                return
            self._cursor, wait_s = page["cursor"], 0.0
            for envelope in page["envelopes"]:
                if envelope["type"] == "steward.part":
                    self._part(envelope["data"])
            if len(page["envelopes"]) < PAGE:
                return

    def end(self) -> str:
        """Show the rest; answers all that was shown."""
        self.show(0.0)
        if self._text:
            print(flush=True)
        return self._text

    def _part(self, data: dict[str, Any]) -> None:
        """An attempt that begins anew, and another request to the model, are shown on a line of their own."""
        if data["turn_id"] != self._turn:
            return
        if self._attempt not in ("", data["attempt"]) and self._text:
            print(flush=True)
        self._attempt = data["attempt"]
        self._text += data["text"]
        sys.stdout.write(clean(data["text"]))
        sys.stdout.flush()

    def _read(self, wait_s: float) -> Any:
        """A page; None where there is no channel, and so no part."""
        given = {**self._given, "limit": PAGE, "wait_s": wait_s, **({"after": self._cursor} if self._cursor else {})}
        try:
            page = self._session.call("channels.read", given)
        except Refusal as refusal:
            if refusal.problem.reason != "NOT_FOUND":
                raise
            self.there, self._cursor = False, None
            return None
        self.there = True
        return page
