"""Manifests and code from files."""

import json
from pathlib import Path
from typing import Any

import pytest

from controlplane.cli.documents import read_yaml
from controlplane.cli.manifests import load
from schemas.agent import CODE_BYTES_MAX
from schemas.problem import Refusal
from tests.cli.conftest import Steward
from tests.cli.standin import StandIn

AGENT = "kind: Agent\nmetadata: {name: echo}\nspec:\n  entrypoint: echo:Echo\n"


def test_yaml_says_what_json_could_say() -> None:
    """Dates, times and words that older YAML turns into something else stay text."""
    text = "a: 2026-01-31\nb: 2026-01-31T10:00:00Z\nc: no\nd: 12:30\ne: 0o17\nf: ~\ng: true\nh: 1.5\ni: 0x1f\nj: 1e3\n"
    assert read_yaml(text, "x") == [
        {
            "a": "2026-01-31", "b": "2026-01-31T10:00:00Z", "c": "no", "d": "12:30", "e": "0o17",
            "f": None, "g": True, "h": 1.5, "i": "0x1f", "j": 1000.0,
        }
    ]  # fmt: skip


def test_yaml_anchors_and_merges_are_plain_values() -> None:
    """What is referred to stands where it was referred to."""
    assert read_yaml("a: &x {p: 1}\nb: *x\nc:\n  <<: *x\n  q: 2\n", "x") == [
        {"a": {"p": 1}, "b": {"p": 1}, "c": {"p": 1, "q": 2}}
    ]


def test_yaml_that_holds_itself_is_refused() -> None:
    """A value inside itself is no JSON."""
    with pytest.raises(Refusal) as refused:
        read_yaml("a: &x [*x]\n", "x")
    assert refused.value.problem.reason == "MALFORMED_YAML"


def test_files_folders_and_documents_make_one_list(tmp_path: Path) -> None:
    """Several documents a file, several files, a folder in the order of its names."""
    (tmp_path / "b.yaml").write_text(
        "kind: Channel\nmetadata: {name: b}\n---\n---\nkind: Channel\nmetadata: {name: c}\n"
    )
    (tmp_path / "a.json").write_text(json.dumps([{"kind": "Channel", "metadata": {"name": "a"}}]))
    (tmp_path / "notes.txt").write_text("not a manifest")
    assert [it["metadata"]["name"] for it in load([tmp_path])] == ["a", "b", "c"]
    assert [it["metadata"]["name"] for it in load([tmp_path / "b.yaml", tmp_path / "a.json"])] == ["b", "c", "a"]


def test_a_code_folder_becomes_files(tmp_path: Path) -> None:
    """Python and small text, with their paths; not caches, hidden files, tests, and what is no text."""
    code = tmp_path / "agents"
    for path in ("echo.py", "sub/words.txt", "__pycache__/echo.py", ".git/x.py", "test_echo.py", "tests/a.py", "x.png"):
        (code / path).parent.mkdir(parents=True, exist_ok=True)
        (code / path).write_text(path)
    (tmp_path / "m.yaml").write_text(AGENT + "  code: {folder: ./agents}\n")
    assert load([tmp_path / "m.yaml"])[0]["spec"]["code"] == {
        "files": {"echo.py": "echo.py", "sub/words.txt": "sub/words.txt"}
    }


def test_code_of_a_template_one_file_and_by_flag(tmp_path: Path) -> None:
    """A fleet's template, `{file: …}`, and --code for agents that give none."""
    (tmp_path / "echo.py").write_text("x")
    (tmp_path / "m.yaml").write_text(
        AGENT + "  code: {file: echo.py}\n---\n" + AGENT + "---\n"
        "kind: Fleet\nmetadata: {name: f}\nspec: {replicas: 1, template: {spec: {code: {folder: .}}}}\n"
        "---\nkind: Channel\nmetadata: {name: c}\n"
    )
    one, two, fleet, channel = load([tmp_path / "m.yaml"], tmp_path / "echo.py")
    assert one["spec"]["code"] == two["spec"]["code"] == {"files": {"echo.py": "x"}}
    assert fleet["spec"]["template"]["spec"]["code"]["files"]["echo.py"] == "x"
    assert "spec" not in channel


def _symlink(folder: Path) -> None:
    (folder / "leak.py").symlink_to("/etc/hostname")


def _binary(folder: Path) -> None:
    (folder / "a.py").write_bytes(b"\xff\xfe")


def _many(folder: Path) -> None:
    for number in range(201):
        (folder / f"m{number}.py").write_text("")


def _large(folder: Path) -> None:
    (folder / "a.py").write_text("#" * (CODE_BYTES_MAX + 1))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_symlink, "INVALID_CODE"),
        (_binary, "INVALID_CODE"),
        (_many, "TOO_LARGE"),
        (_large, "TOO_LARGE"),
        (lambda _: None, "INVALID_CODE"),
    ],
)
def test_code_that_can_not_be_taken_whole_is_refused(make: Any, reason: str, tmp_path: Path) -> None:
    """Never cut, never followed out of its folder."""
    code = tmp_path / "code"
    code.mkdir()
    make(code)
    (tmp_path / "m.yaml").write_text(AGENT + "  code: {folder: code}\n")
    with pytest.raises(Refusal) as refused:
        load([tmp_path / "m.yaml"])
    assert refused.value.problem.reason == reason
    assert refused.value.problem.field == "/manifests/0/spec/code/folder"


@pytest.mark.parametrize(
    ("text", "reason"), [("- 1\n", "NOT_AN_OBJECT"), ("", "MISSING_FIELD"), ("a\n", "NOT_AN_OBJECT")]
)
def test_what_is_no_manifest_is_refused(
    text: str, reason: str, plane: StandIn, steward: Steward, tmp_path: Path
) -> None:
    """With a Problem, before anything is sent."""
    (tmp_path / "m.yaml").write_text(text)
    ran = steward("propose", "-f", "m.yaml", "--url", plane.url, "-o", "json")
    assert (ran.code, ran.json["reason"]) == (1, reason)
    assert plane.calls == []


def test_odd_manifests_are_left_for_the_plane_to_judge(tmp_path: Path) -> None:
    """Whatever shape a spec has, it is sent as it is."""
    odd = [{"kind": "Agent", "spec": 1}, {"kind": "Fleet", "spec": {"template": []}}, {"spec": {"code": {"folder": 1}}}]
    (tmp_path / "m.json").write_text(json.dumps(odd))
    assert load([tmp_path / "m.json"], tmp_path) == odd


def test_manifests_come_from_standard_input_too(plane: StandIn, script: Steward) -> None:
    """`-f -`."""
    plane.answers["resources.propose"] = {"plan_id": "plan_1"}
    ran = script("propose", "-f", "-", "--url", plane.url, "-o", "json", stdin=b"kind: Channel\nmetadata: {name: a}\n")
    assert ran.code == 0
    assert plane.inputs("resources.propose") == [{"manifests": [{"kind": "Channel", "metadata": {"name": "a"}}]}]
