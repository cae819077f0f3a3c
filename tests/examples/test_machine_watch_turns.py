"""The agents of the machine watch, each turn run by the real turn engine and replayed from its journal."""

import importlib
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from controlplane.cli.manifests import load
from controlplane.operations.codecheck import check_entrypoint, check_files
from ray_runtime.testing import run_turn
from schemas.agent import AgentManifest
from schemas.channel import ChannelManifest
from schemas.machine import Cpu, Disks, Memory, Mount, Network, Processes, ProcessReading

HOME = Path(__file__).resolve().parents[2] / "examples" / "machine_watch"
MODULES = ("baseline", "reader", "sentinel", "diagnoser")


@pytest.fixture
def agents(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The agents' modules, imported as a host imports them."""
    monkeypatch.syspath_prepend(str(HOME / "agents"))
    yield {name: importlib.import_module(name) for name in MODULES}
    for name in MODULES:
        sys.modules.pop(name, None)


def machine(busy_s: float, total_s: float, cores: list[float]) -> Any:
    """A machine with these counters, in the effector's own shapes."""
    seen = {
        "cpu": Cpu(
            cpu_percent=1, per_core_percent=[1], cores=2, load_1m=0, running=1, busy_s=busy_s, total_s=total_s,
            per_core_busy_s=cores,
        ),
        "memory": Memory(memory_percent=41.5, total_bytes=1, available_bytes=1, swap_percent=0, swap_used_bytes=0),
        "disks": Disks(
            mounts=[Mount(mount="/", disk_percent=70.0, total_bytes=1, free_bytes=1)], read_bytes=1, written_bytes=2
        ),
        "network": Network(received_bytes=5, sent_bytes=5, interfaces=1),
    }  # fmt: skip
    return lambda asked: seen[asked["what"]].model_dump(mode="json")


def test_the_manifests_are_what_the_plane_takes() -> None:
    """They are valid, their code passes its checks, and every entrypoint is found."""
    models = {"Agent": AgentManifest, "Channel": ChannelManifest}
    manifests = [models[m["kind"]].model_validate(m, strict=True) for m in load([HOME / "manifests.yaml"])]
    assert [m.metadata.name for m in manifests] == ["readings", "reports", "diagnoser", "sentinel", "reader"]
    for manifest in manifests:
        if isinstance(manifest, AgentManifest):
            files = dict(manifest.spec.code.files or {})
            check_files(files)
            check_entrypoint(files, manifest.spec.entrypoint)


def test_the_reader_starts_its_timer(agents: dict[str, Any]) -> None:
    """Its first turn sets a timer at the interval of its config."""
    did = run_turn(agents["reader"].Reader, trigger="start", config={"interval_s": 0.5}).of("timer")
    assert [(timer["name"], timer["every_s"]) for timer in did] == [("reading", 0.5)]


def test_the_reader_sets_its_timer_anew_when_its_config_changed(agents: dict[str, Any]) -> None:
    """Only then: an ordinary reading leaves the timer alone."""
    reader = agents["reader"]
    state = reader.ReaderState(interval_s=reader.INTERVAL_S)
    answers = {"machine.read": machine(1, 2, [0, 1])}
    assert run_turn(reader.Reader, trigger="timer", state=state, answers=answers).of("timer") == []
    changed = run_turn(reader.Reader, trigger="timer", state=state, config={"interval_s": 1}, answers=answers)
    assert [timer["every_s"] for timer in changed.of("timer")] == [1.0]


def test_a_reading_carries_levels_at_once_and_rates_from_the_second_on(agents: dict[str, Any]) -> None:
    """Rates cover the time between two readings; the published data meets the channel's schema."""
    reader = agents["reader"].Reader
    first = run_turn(reader, trigger="timer", answers={"machine.read": machine(100.0, 1000.0, [50.0, 50.0])})
    (published,) = first.of("publish")
    assert published["channel"] == "default/readings"
    assert published["data"]["measures"] == {"tasks_running": 1, "memory_percent": 41.5, "disk_percent": 70.0}
    before = first.state.model_copy(update={"taken_at_s": first.state.taken_at_s - 5})
    second = run_turn(
        reader, trigger="timer", state=before, answers={"machine.read": machine(106.0, 1010.0, [55.0, 51.0])}
    )
    measures = second.of("publish")[0]["data"]["measures"]
    assert (measures["cpu_percent"], measures["busiest_core_percent"]) == (60.0, 100.0)


def test_counters_that_went_back_make_no_rates(agents: dict[str, Any]) -> None:
    """A reboot between two readings is no negative load."""
    moved = agents["reader"].moved_between
    before = {"busy_s": 100.0, "total_s": 200.0, "disk_bytes": 5, "network_bytes": 5, "core_0_busy_s": 100.0}
    assert moved(before, {**before, "busy_s": 1.0, "total_s": 2.0, "core_0_busy_s": 1.0}, 3.0) == {}


def test_the_sentinel_asks_once_and_goes_on_listening(agents: dict[str, Any]) -> None:
    """The second unusual reading makes a request that does not park; the third is within the cooldown."""
    sentinel = agents["sentinel"]
    state = sentinel.SentinelState()
    asked = []
    for cpu in [10.0] * 10 + [95.0] * 3:
        turn = run_turn(sentinel.Sentinel, {"measures": {"cpu_percent": cpu}}, state=state)
        assert turn.problem is None
        state = turn.state
        asked += turn.of("request")
    (question,) = asked
    assert question["to"] == "default/diagnoser"
    assert question["data"]["findings"] == [{"measure": "cpu_percent", "value": 95.0, "usual": 10.0}]
    assert (state.readings, state.questions) == (13, 1)


def test_the_sentinel_remembers_the_report_it_asked_for(agents: dict[str, Any]) -> None:
    """The answer comes to on_reply."""
    sentinel = agents["sentinel"]
    turn = run_turn(sentinel.Sentinel, {"text": "CPU use is high"}, trigger="reply")
    assert turn.state.last_report == "CPU use is high"


def processes(*used: tuple[int, float]) -> dict[str, Any]:
    listed = [
        ProcessReading(
            pid=pid, started_at=1.0, name="burner", cmdline=f"python burner.py {pid}", cpu_s=cpu_s, rss_bytes=1000,
            status="running",
        )
        for pid, cpu_s in used
    ]  # fmt: skip
    return Processes(count=len(listed), processes=listed).model_dump(mode="json")


def test_the_diagnoser_reports_to_people_and_to_who_asked(agents: dict[str, Any]) -> None:
    """One report, published and answered, with the processes that were busy between its two looks."""
    looks = iter([processes((1, 5.0), (2, 7.0)), processes((1, 7.0), (2, 7.0))])
    question = {"findings": [{"measure": "cpu_percent", "value": 95.0, "usual": 10.0}]}
    answers = {"machine.read": lambda asked: next(looks)}
    turn = run_turn(agents["diagnoser"].Diagnoser, question, answers=answers)
    (published,) = turn.of("publish")
    assert published["channel"] == "default/reports"
    assert published["data"] == turn.reply
    assert [process["pid"] for process in turn.reply["processes"]] == [1]
    assert turn.reply["text"].startswith("CPU use is 95 %, usually 10 %. Behind it: burner (pid 1) with")
    assert datetime.fromisoformat(turn.reply["at"]).tzinfo == UTC


def test_the_channels_schema_takes_what_the_reader_publishes() -> None:
    """The dataschema of `readings` asks for a time and numbers."""
    from controlplane.mesh.dataschema import require_match, schema_fault

    documents = yaml.safe_load_all((HOME / "manifests.yaml").read_text())
    schema = next(d for d in documents if d["metadata"]["name"] == "readings")["spec"]["dataschema"]
    assert schema_fault(schema) is None
    require_match(schema, {"taken_at": "2026-01-01T00:00:00Z", "measures": {"cpu_percent": 1.0}}, "default", "readings")
