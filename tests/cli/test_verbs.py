"""The verbs: a few operations in a row, and what people see of them."""

from pathlib import Path
from typing import Any

import pytest

from controlplane.resources.problems import problem
from schemas.problem import Next
from tests.cli import answers
from tests.cli.conftest import Steward
from tests.cli.standin import StandIn

MANIFEST = "kind: Channel\nmetadata: {name: reports}\n"


@pytest.fixture(autouse=True)
def _manifest(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(MANIFEST)


def _stage(plane: StandIn, **more: Any) -> None:
    plane.answers.update(
        {
            "resources.propose": answers.plan(),
            "plans.commit": answers.committed(),
            "changes.wait": answers.change(),
            **{name.replace("_", "."): value for name, value in more.items()},
        }
    )


def _called(plane: StandIn) -> list[str]:
    return [name for name, _ in plane.calls]


def test_apply_proposes_shows_commits_and_waits(plane: StandIn, steward: Steward) -> None:
    """What will be done, what is claimed, and what became of it; 0 when all held."""
    _stage(plane)
    ran = steward("apply", "-f", "m.yaml", "--yes", "--on-miss", "revert", "--url", plane.url)
    assert ran.code == 0
    assert _called(plane) == ["resources.propose", "plans.commit", "changes.wait"]
    assert plane.inputs("plans.commit") == [{"plan_id": "plan_1", "on_miss": "revert"}]
    for said in ("create", "Agent default/echo", "condition.Ready", "verified", "held"):
        assert said in ran.out


def test_apply_prints_only_the_change_as_json(plane: StandIn, steward: Steward) -> None:
    """With --output json the answer is one JSON value."""
    _stage(plane)
    assert steward("apply", "-f", "m.yaml", "-y", "--url", plane.url, "-o", "json").json == answers.change()


def test_apply_where_nobody_can_be_asked_commits(plane: StandIn, steward: Steward) -> None:
    """Without a terminal the command itself is the wish: the plan is shown, committed, waited for."""
    _stage(plane)
    ran = steward("apply", "-f", "m.yaml", "--url", plane.url)
    assert ran.code == 0
    assert plane.inputs("plans.commit")


def test_apply_of_what_is_already_so_commits_nothing(plane: StandIn, steward: Steward) -> None:
    """A plan without steps is done."""
    _stage(plane, resources_propose=answers.plan(steps=0))
    ran = steward("apply", "-f", "m.yaml", "--url", plane.url)
    assert (ran.code, _called(plane)) == (0, ["resources.propose"])
    assert "all is as wanted" in ran.out


def test_a_stale_plan_is_not_committed_again_unasked(plane: StandIn, steward: Steward) -> None:
    """It says what moved, and the command for the new plan; 1."""
    _stage(plane, plans_commit=answers.committed("stale"))
    ran = steward("apply", "-f", "m.yaml", "--yes", "--url", plane.url)
    assert (ran.code, _called(plane)) == (1, ["resources.propose", "plans.commit"])
    assert "steward commit plan_2" in ran.out
    assert "is at 2" in ran.out


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (answers.change("verified"), 0),
        (answers.change("unverifiable"), 0),
        (answers.change("missed"), 1),
        (answers.change("open", done=False), 1),
    ],
    ids=["verified", "unverifiable", "missed", "open"],
)
def test_wait_ends_as_the_change_did(change: dict[str, Any], code: int, plane: StandIn, steward: Steward) -> None:
    """0 when it is done and nothing was missed, else 1."""
    plane.answers["changes.wait"] = change
    assert steward("wait", "chg_1", "--timeout-s", "0", "--url", plane.url).code == code


def test_waiting_goes_on_until_the_change_is_done(plane: StandIn, steward: Steward) -> None:
    """One call waits no longer than the plane allows; the verb asks again."""
    looks = iter([answers.change("open", done=False), answers.change()])
    plane.answers["changes.wait"] = lambda _: next(looks)
    assert steward("wait", "chg_1", "--timeout-s", "600", "--url", plane.url).code == 0
    assert [it["timeout_s"] <= 60 for it in plane.inputs("changes.wait")] == [True, True]


def test_delete_and_undo_go_the_same_way(plane: StandIn, steward: Steward) -> None:
    """Both propose a plan, show it, commit it, wait."""
    _stage(plane, agents_delete=answers.plan(action="delete"), changes_revert=answers.plan())
    assert steward("delete", "agent", "ops/echo", "--yes", "--url", plane.url).code == 0
    assert steward("delete", "Agents/echo", "-n", "ops", "-y", "--url", plane.url).code == 0
    assert plane.inputs("agents.delete") == [{"name": "echo", "namespace": "ops"}] * 2
    assert steward("undo", "chg_1", "--yes", "--url", plane.url).code == 0
    assert plane.inputs("changes.revert") == [{"change_id": "chg_1"}]
    assert steward("delete", "agent", "--url", plane.url).code == 2


def test_get_shows_one_or_lists_all(plane: StandIn, steward: Steward) -> None:
    """Every page of a list, and every form of a kind's name."""
    pages = iter(
        [{"items": [answers.agent("a")], "next_page": "p"}, {"items": [answers.agent("b")], "next_page": None}]
    )
    plane.answers.update({"agents.list": lambda _: next(pages), "agents.get": answers.agent()})
    ran = steward("get", "agents", "-l", "app=echo,x=", "--url", plane.url)
    lines = ran.out.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["default", "a"], ["default", "b"]]
    assert "Ready, suspended" in lines[1]
    assert plane.inputs("agents.list")[0]["labels"] == {"app": "echo", "x": ""}
    assert plane.inputs("agents.list")[1]["page"] == "p"
    one = steward("get", "agent/echo", "--url", plane.url)
    assert "Agent default/echo" in one.out
    assert "echo.py: (2 lines)" in one.out
    assert steward("get", "agent", "echo", "-o", "json", "--url", plane.url).json == answers.agent()


def test_a_message_stands_after_the_name(plane: StandIn, steward: Steward) -> None:
    """`send` and `ask` take JSON; without one, null is sent by leaving it out."""
    assert steward("send", "ops/echo", '{"text": "hi"}', "--request-id", "r1", "--url", plane.url).code == 0
    assert steward("send", "echo", "--url", plane.url).code == 0
    assert steward("ask", "echo", "-5", "--timeout-s", "2.5", "--url", plane.url).code == 2
    assert steward("ask", "echo", "--timeout-s", "2.5", "--url", plane.url, "--", "-5").code == 0
    sent = {"name": "echo", "namespace": "ops", "data": {"text": "hi"}, "request_id": "r1"}
    assert plane.inputs("agents.send") == [sent, {"name": "echo"}]
    assert plane.inputs("agents.ask") == [{"name": "echo", "data": -5, "timeout_s": 2.5}]


def test_a_message_that_is_no_json_is_not_sent(plane: StandIn, steward: Steward) -> None:
    """MALFORMED_JSON, as everywhere."""
    ran = steward("send", "echo", "{hi}", "--url", plane.url, "-o", "json")
    assert (ran.code, ran.json["reason"], plane.calls) == (1, "MALFORMED_JSON", [])


def test_what_is_zero_is_sent(plane: StandIn, steward: Steward) -> None:
    """Zero and the empty text are values, not absence."""
    steward("feedback", "read", "--wait-s", "0", "--after", "", "--url", plane.url)
    assert plane.inputs("feedback.read") == [{"wait_s": 0.0, "after": ""}]


def test_the_next_steps_of_a_problem_are_commands(plane: StandIn, steward: Steward) -> None:
    """People see what to run."""
    steps = [
        Next(operation="agents.list", arguments={"namespace": "ops"}, why="shows what there is"),
        Next(operation="agents.unknown", arguments={"a": [1]}, why="is newer than this command line"),
    ]
    plane.answers["agents.get"] = problem("NOT_FOUND", "there is no \x1b[31magent", field="/name", next=steps, name="x")
    ran = steward("agents", "get", "x", "--url", plane.url)
    assert ran.code == 1
    for said in ("NOT_FOUND", "/name", "steward agents list --namespace ops", "steward call agents.unknown --json"):
        assert said in ran.err
    assert "\x1b" not in ran.err


def test_feedback_reads_the_whole_log(plane: StandIn, steward: Steward) -> None:
    """Page by page, narrowed as asked."""
    pages = iter([{"events": [answers.event("1")], "cursor": "1"}, {"events": [], "cursor": "1"}])
    plane.answers["feedback.read"] = lambda _: next(pages)
    ran = steward("feedback", "--types", "change.*", "--kind", "Agent", "--url", plane.url, "-o", "json")
    assert ran.json == {"events": [answers.event("1")], "cursor": "1"}
    assert plane.inputs("feedback.read")[0]["filter"] == {"kind": "Agent", "types": ["change.*"]}


def test_following_goes_on_where_the_line_broke(plane: StandIn, steward: Steward) -> None:
    """Each event once, in order, from the last cursor; a Problem that waiting can not mend ends it."""
    ended = problem("UNAUTHENTICATED", "the token was revoked")
    plane.streams = [[answers.event("1"), answers.event("2")], [answers.event("3", "change.committed")]]
    plane.answers["feedback.read"] = ended
    ran = steward("feedback", "--follow", "--url", plane.url)
    lines = ran.out.splitlines()
    assert [line.split()[1] for line in lines] == ["resource.created", "resource.created", "change.committed"]
    assert [path.partition("after=")[2] for path in plane.followed] == ["", "20", "30"]
    assert ran.code == 1
    assert "UNAUTHENTICATED" in ran.err


def test_top_without_a_terminal_looks_once(plane: StandIn, steward: Steward) -> None:
    """Lines, and the end."""
    plane.answers.update(
        {
            "system.status": answers.status(),
            "agents.list": {"items": [answers.agent()], "next_page": None},
            "changes.list": {"items": [answers.change("open", done=False)], "next_page": None},
            "feedback.read": {"events": [answers.event("1")], "cursor": "1"},
            "channels.read": problem("NOT_FOUND", "no channel"),
        }
    )
    ran = steward("top", "--url", plane.url)
    assert ran.code == 0
    assert "plane  ready, gate up" in ran.out
    assert "agent default/echo  Ready" in ran.out
    assert "resource.created" in ran.out
