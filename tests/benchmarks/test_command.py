"""The benchmarks are chosen by name, fail by themselves, and write between their own marks."""

from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import beside, page
from benchmarks.given import POSTGRES, SQLITE, Given
from benchmarks.peers import fetched
from benchmarks.targets import at_least, at_most

KNOWN = {
    "breaks": ("Breaks", lambda _: 1 // 0),
    "works": ("Works", lambda _: f"a table {at_most('a target', 1, 2).cell}\n"),
    "misses": ("Misses", lambda _: f"another {at_least('more', 1, 2).cell}\n"),
    "explained": ("Explained", lambda _: f"a third {at_least('enough', 1, 2, 'the disk is slow').cell}\n"),
}


@pytest.fixture(autouse=True)
def paper(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A page of its own, and benchmarks that take no time."""
    path = tmp_path / "benchmarks.md"
    path.write_text("# Benchmarks\n\n<!-- begin: works -->\nold\n<!-- end: works -->\n\nlast words\n")
    monkeypatch.setattr(page, "PATH", path)
    monkeypatch.setattr(command, "BENCHMARKS", KNOWN)
    return path


def ended(*argv: str) -> int:
    with pytest.raises(SystemExit) as end:
        command.main(list(argv))
    assert isinstance(end.value.code, int)
    return end.value.code


def test_what_fails_says_so_in_its_row_and_the_others_go_on(paper: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All are run; the command ends with 1, and only what worked is written, in its place."""
    assert ended() == 1
    shown = capsys.readouterr().out
    assert "failed: ZeroDivisionError" in shown
    assert "missed more: 1.00, not ≥ 2" in shown
    written = paper.read_text()
    assert written.startswith("# Benchmarks\n\n<!-- begin: works -->\n## Works")
    assert "old" not in written
    assert written.index("last words") < written.index("<!-- begin: misses -->")
    assert "Breaks" not in written
    assert "**missed**: the disk is slow" in written


def test_some_are_chosen_and_a_look_writes_nothing(paper: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A miss of which the reason is known is no failure; an unknown name is told with those there are."""
    before = paper.read_text()
    assert ended("works", "explained", "--quick") == 0
    assert paper.read_text() == before
    assert "Misses" not in capsys.readouterr().out
    assert ended("nothing") == 2
    assert "breaks, works, misses, explained" in capsys.readouterr().err


def test_a_look_takes_fewer_samples() -> None:
    """A tenth, and never so few that there is no quantile."""
    assert [Given(quick=it, agents=1).several(300) for it in (False, True)] == [300, 30]
    assert Given(quick=True, agents=1).several(20) == 3


@pytest.mark.parametrize("peer", ["restate", SQLITE, POSTGRES])
def test_where_a_peer_is_absent_its_cell_says_how_it_comes(
    peer: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """That is no failure: ours is measured all the same."""
    monkeypatch.setattr(fetched, "PYTHON", tmp_path / "python")
    monkeypatch.setattr(fetched, "HERE", tmp_path)
    found = beside.measured(peer, Given(quick=True, agents=1), "wake", 0.1, 3)
    assert found.cells("wake", "1 KiB", 1.0) == ["peer absent: make peers", ""]
    assert found.rate(0) == "peer absent: make peers"
    assert found.latency("wake", "1 KiB") is None
    assert beside.FAILED == []


def test_a_peer_that_breaks_is_told_in_its_cell_and_fails_the_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its figures are missing, those beside it are there, and the command ends with 1."""

    def breaks(*_: object) -> dict[str, object]:
        raise RuntimeError("no port is free")

    def measure(given: Given) -> str:
        return f"ours 1 {beside.measured('restate', given, 'wake', 0.1, 3).cells('wake', '1 KiB', 1.0)}\n"

    monkeypatch.setattr(fetched, "restate", breaks)
    monkeypatch.setattr(command, "BENCHMARKS", {"both": ("Both", measure)})
    assert ended("--quick") == 1
    shown = capsys.readouterr().out
    assert "ours 1 ['it failed', '']" in shown  # what it said is told once, below
    assert "failed: Restate: no port is free" in shown
