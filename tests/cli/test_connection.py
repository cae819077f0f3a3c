"""Finding the plane that is meant."""

import json
from pathlib import Path

import pytest

from controlplane.cli.connection import Wanted, find
from schemas.problem import Refusal
from tests.cli.conftest import Steward
from tests.cli.standin import StandIn


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The folder of a plane at port 1, where nothing listens."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "plane.json").write_text(json.dumps({"url": "http://127.0.0.1:1", "pid": 1}))
    (folder / "admin.token").write_text("stw_local\n")
    return folder


def test_a_folder_names_its_plane_and_its_token(data: Path) -> None:
    """--data, or STEWARD_DATA, or .steward here."""
    for found in (find(Wanted(data=data), {}), find(Wanted(), {"STEWARD_DATA": str(data)})):
        assert (found.url, found.token) == ("http://127.0.0.1:1", "stw_local")
    data.rename(data.parent / ".steward")
    assert find(Wanted(), {}).token == "stw_local"


def test_the_environment_names_a_plane(data: Path) -> None:
    """STEWARD_URL and STEWARD_TOKEN outrank a folder that was not asked for."""
    environ = {"STEWARD_URL": "http://far:7700/", "STEWARD_TOKEN": "far", "STEWARD_DATA": str(data)}
    found = find(Wanted(), environ)
    assert (found.url, found.token) == ("http://far:7700", "far")


def test_a_flag_outranks_the_environment(data: Path) -> None:
    """--data means that folder's plane, --url that address."""
    environ = {"STEWARD_URL": "http://far:7700", "STEWARD_TOKEN": "far"}
    found = find(Wanted(data=data), environ)
    assert (found.url, found.token) == ("http://127.0.0.1:1", "stw_local")
    found = find(Wanted(url="http://near:1", token="near"), environ)
    assert (found.url, found.token) == ("http://near:1", "near")


def test_a_folders_token_is_shown_to_no_other_plane(data: Path) -> None:
    """The admin token of this machine does not go to another address."""
    assert find(Wanted(url="http://far:7700", data=data), {}).token is None
    assert find(Wanted(), {"STEWARD_URL": "http://far:7700", "STEWARD_DATA": str(data)}).token is None
    assert find(Wanted(url="http://127.0.0.1:1/", data=data), {}).token == "stw_local"


def test_no_plane_is_a_problem_that_says_what_to_do(tmp_path: Path) -> None:
    """NO_PLANE, with the ways to a plane."""
    with pytest.raises(Refusal) as refused:
        find(Wanted(data=tmp_path), {})
    assert refused.value.problem.reason == "NO_PLANE"
    assert "steward up" in refused.value.problem.detail


def test_a_plane_that_does_not_answer_is_no_plane(data: Path, steward: Steward) -> None:
    """What plane.json says may be long gone."""
    ran = steward("call", "system.status", "--data", str(data))
    assert (ran.code, ran.json["reason"]) == (1, "NO_PLANE")
    assert ran.json["metadata"]["url"] == "http://127.0.0.1:1"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}'])
def test_half_a_record_is_no_plane(text: str, data: Path, steward: Steward) -> None:
    """A plane.json that can not be read is none."""
    (data / "plane.json").write_text(text)
    assert steward("call", "system.status", "--data", str(data)).json["reason"] == "NO_PLANE"


@pytest.mark.parametrize(
    "url",
    ["http://[::1", "http://127.0.0.1:abc", "http://127.0.0.1:99999", "http://127.0.0.1:0", "http://a..b", "http://x\ny",
     f"http://{'x' * 70}.org", "ftp://here", "here"],
)  # fmt: skip
def test_what_is_no_address_is_wrong_usage(url: str, steward: Steward, monkeypatch: pytest.MonkeyPatch) -> None:
    """By flag or by variable."""
    ran = steward("--url", url, "get", "agents")
    assert (ran.code, ran.out) == (2, "")
    assert "is no http address" in ran.err
    monkeypatch.setenv("STEWARD_URL", url)
    assert steward("call", "agents.list").code == 2


@pytest.mark.parametrize("token", ["ä", "a\nb"])
def test_a_token_that_no_header_carries_is_wrong_usage(
    token: str, plane: StandIn, steward: Steward, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By flag or by variable; it is not shown."""
    for words in (("--token", token), ()):
        ran = steward("--url", plane.url, *words, "call", "agents.list")
        assert (ran.code, ran.out) == (2, "")
        assert "--token" in ran.err
        monkeypatch.setenv("STEWARD_TOKEN", token)
    assert plane.calls == []


def test_people_see_a_problem_with_its_way_out(data: Path, steward: Steward) -> None:
    """Outside `call` a Problem is words on standard error."""
    ran = steward("brief", "--data", str(data))
    assert (ran.code, ran.out) == (1, "")
    assert "NO_PLANE" in ran.err
    assert "steward up" in ran.err
