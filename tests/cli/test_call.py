"""`steward call`: JSON in, JSON out, and the plane's judgement untouched."""

import json
from pathlib import Path

import pytest

from controlplane.resources.problems import problem
from schemas.problem import Next
from tests.cli.conftest import Steward
from tests.cli.standin import StandIn


def test_the_input_is_sent_as_it_was_written(plane: StandIn, steward: Steward) -> None:
    """Not one byte is changed on the way: numbers, order and blanks are the plane's to judge."""
    text = '{"b": 1e999, "a":123456789012345678901234567890, "b": "ü"}'
    assert steward("call", "agents.send", "--json", text, "--url", plane.url).code == 0
    assert plane.calls == [("agents.send", text.encode())]


def test_the_output_is_printed_as_json(plane: StandIn, steward: Steward) -> None:
    """The output, whole and in its order, ends with 0."""
    plane.answers["agents.get"] = {"z": [1, {"ü": None}], "a": "\x1b[31m"}
    ran = steward("call", "agents.get", "--json", '{"name":"echo"}', "--url", plane.url)
    assert (ran.code, ran.err) == (0, "")
    assert ran.json == {"z": [1, {"ü": None}], "a": "\x1b[31m"}
    assert "\x1b" not in ran.out


def test_a_problem_is_printed_as_the_plane_said_it(plane: StandIn, steward: Steward) -> None:
    """A Problem ends with 1, on standard output, field for field."""
    step = Next(operation="agents.list", arguments={}, why="shows them")
    said = problem("NOT_FOUND", "there is no agent", field="/name", next=[step], name="x")
    plane.answers["agents.get"] = said
    ran = steward("call", "agents.get", "--json", "{}", "--url", plane.url)
    assert (ran.code, ran.err) == (1, "")
    assert ran.json == said.model_dump(mode="json")


@pytest.mark.parametrize(
    "text", ["{", "", "{'a': 1}", '{"a": NaN}', '{"a": -Infinity}', "[" * 100_000, '{"a": "\udcff"}'], ids=repr
)
def test_what_is_no_json_is_refused_and_not_sent(text: str, plane: StandIn, steward: Steward) -> None:
    """MALFORMED_JSON, exit 1, and nothing went out."""
    ran = steward("call", "agents.get", "--json", text, "--url", plane.url)
    assert ran.code == 1
    assert ran.json["reason"] == "MALFORMED_JSON"
    assert plane.calls == []


def test_json_that_is_no_object_is_the_planes_to_refuse(plane: StandIn, steward: Steward) -> None:
    """A list is JSON: it is sent, so that every surface refuses it in the same words."""
    steward("call", "agents.get", "--json", "[1]", "--url", plane.url)
    assert plane.calls == [("agents.get", b"[1]")]


def test_the_input_may_come_from_standard_input_or_a_file(plane: StandIn, script: Steward, tmp_path: Path) -> None:
    """`--json -`, `--file x.json` and `--file x.yaml` give the same call."""
    (tmp_path / "x.json").write_text('{"name": "echo"}')
    (tmp_path / "x.yaml").write_text("name: echo\n")
    assert script("call", "agents.get", "--json", "-", "--url", plane.url, stdin=b'{"name": "echo"}').code == 0
    assert script("call", "agents.get", "--file", "x.json", "--url", plane.url).code == 0
    assert script("call", "agents.get", "--file", "x.yaml", "--url", plane.url).code == 0
    assert plane.inputs("agents.get") == [{"name": "echo"}] * 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: 1\na: 2\n", "given twice"),
        ("a: [1\n", "line 2"),
        ("a: 1\n---\nb: 2\n", "2 documents"),
        ("", "0 documents"),
        ("a: !!binary aGk=\n", "bytes"),
        ("1: a\n", "must be text"),
        ("a: !!python/object/apply:os.system [x]\n", "could not determine a constructor"),
        ("a: \x00\n", "special characters"),
    ],
)
def test_what_is_no_yaml_is_refused_and_not_sent(
    content: str, said: str, plane: StandIn, steward: Steward, tmp_path: Path
) -> None:
    """MALFORMED_YAML, exit 1, with what is wrong; nothing went out."""
    (tmp_path / "x.yaml").write_text(content)
    ran = steward("call", "agents.get", "--file", "x.yaml", "--url", plane.url)
    assert ran.code == 1
    assert ran.json["reason"] == "MALFORMED_YAML"
    assert said in ran.json["detail"]
    assert plane.calls == []


def test_a_file_that_is_not_there_is_a_problem(plane: StandIn, steward: Steward) -> None:
    """NOT_FOUND with the path."""
    ran = steward("call", "agents.get", "--file", "none.json", "--url", plane.url)
    assert (ran.code, ran.json["metadata"]["path"]) == (1, "none.json")


@pytest.mark.parametrize(
    "words",
    [
        ["call"],
        ["call", "agents.get", "--jsn", "{}"],
        ["call", "agents.get", "--json", "{}", "--file", "x"],
        ["call", "agents.get", "--url", "nonsense"],
        ["no-such-verb"],
        ["agents", "no-such-verb"],
        ["agents", "get"],
        ["agents", "get", "a", "b"],
        ["agents", "get", "a/b", "--namespace", "c"],
        ["agents", "send", "echo", "--data", '{"a": 1}'],
        ["plans", "commit", "plan_1", "--on-miss", "never"],
        ["turns", "list", "echo", "--limit", "many"],
        ["get", "nothings"],
        ["--output", "xml", "brief"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2_and_says_what_is_wrong(words: list[str], plane: StandIn, steward: Steward) -> None:
    """Wrong usage is not the plane's to judge: nothing is sent."""
    ran = steward(*words, *([] if "--url" in words else ["--url", plane.url]))
    assert ran.code == 2
    assert ran.err
    assert plane.calls == []


def test_the_token_goes_with_every_call(plane: StandIn, steward: Steward) -> None:
    """As a bearer token, before the command or after it."""
    steward("--token", "one", "call", "a.b", "--url", plane.url)
    steward("call", "a.b", "--url", plane.url, "--token", "two")
    steward("call", "a.b", "--url", plane.url)
    assert plane.tokens == ["Bearer one", "Bearer two", None]


def test_an_answer_that_no_plane_gives_is_a_problem(plane: StandIn, steward: Steward) -> None:
    """Another server on the port is said to be no plane."""
    plane.answers["agents.get"] = b"<html>hello</html>"
    ran = steward("call", "agents.get", "--url", plane.url)
    assert (ran.code, ran.json["reason"]) == (1, "INTERNAL")
    assert "is it a plane" in ran.json["detail"]


def test_an_operation_of_any_name_is_the_planes_to_know(plane: StandIn, steward: Steward) -> None:
    """A name with a slash stays one name."""
    steward("call", "agents/../get", "--url", plane.url)
    assert plane.calls[0][0] == "agents%2F..%2Fget"


def test_the_script_ends_as_its_answer_says(plane: StandIn, script: Steward) -> None:
    """As a process: 0 with an output, 1 with a Problem, 2 for wrong usage."""
    plane.answers["agents.get"] = {"ok": True}
    plane.answers["agents.list"] = problem("INVALID_CURSOR", "no")
    good, bad = script("call", "agents.get", "--url", plane.url), script("call", "agents.list", STEWARD_URL=plane.url)
    assert (good.code, good.json) == (0, {"ok": True})
    assert (bad.code, json.loads(bad.out)["reason"]) == (1, "INVALID_CURSOR")
    assert script("call").code == 2
