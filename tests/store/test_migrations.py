"""The tables come and go, on both databases, and are what the code declares."""

import multiprocessing
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, select, text
from sqlmodel import SQLModel

import controlplane.store.tables  # noqa: F401 - fills the metadata
from controlplane.store import migrate, migrating
from controlplane.store.tables import PlanRow
from schemas.problem import Refusal


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/steward.db"
        return
    server = request.getfixturevalue("postgres")
    url = server.create("template1")
    yield url
    server.drop(url)


def tables(url: str) -> set[str]:
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    names = set(inspect(engine).get_table_names()) - {"alembic_version"}
    engine.dispose()
    return names


def test_up_down_up(empty_url: str) -> None:
    """Every table comes, goes, and comes again; what is there is what is declared."""
    assert migrate.current(empty_url) is None
    migrate.upgrade(empty_url)
    assert migrate.current(empty_url) == migrate.HEAD
    migrate.check(empty_url)
    migrate.downgrade(empty_url, "base")
    assert tables(empty_url) == set()
    migrate.upgrade(empty_url)
    migrate.check(empty_url)
    assert tables(empty_url) == set(SQLModel.metadata.tables)


def test_what_is_there_gets_its_place(empty_url: str) -> None:
    """Agents of fleets get their place, tombstones of which nothing is left belong to nobody, labels stay."""
    migrate.upgrade(empty_url, "0002")
    engine = create_engine(empty_url.replace("postgresql:", "postgresql+psycopg:"))
    made = [
        ("Fleet", "a-b", "fleet_1", None, None),
        ("Agent", "a-b-0", "agent_0", "fleet_1", None),
        ("Agent", "a-b-12", "agent_12", "fleet_1", None),
        ("Agent", "a-b-13", "agent_13", "fleet_1", 1.0),
        ("Agent", "child", "agent_child", "agent_0", None),
    ]
    columns = "kind, name, uid, owner, deleted_at, namespace, labels, spec, created_at, updated_at"
    with engine.begin() as connection:
        for kind, name, uid, owner, deleted_at in made:
            values = {"kind": kind, "name": name, "uid": uid, "owner": owner, "deleted_at": deleted_at}
            fixed = "'default', '{}', '{}', 0, 0"
            query = f"INSERT INTO resource ({columns}) VALUES (:kind, :name, :uid, :owner, :deleted_at, {fixed})"
            connection.execute(text(query), values)
        connection.execute(text("INSERT INTO label VALUES ('Agent', 'default', 'k', 'v', 'child')"))
    migrate.upgrade(empty_url)
    with engine.begin() as connection:
        found = connection.execute(text("SELECT name, owner, ordinal, template FROM resource ORDER BY name")).all()
        labels = connection.execute(text("SELECT kind, namespace, key, value, name FROM label")).all()
    engine.dispose()
    assert [tuple(row) for row in found] == [
        ("a-b", None, None, None),
        ("a-b-0", "fleet_1", 0, ""),
        ("a-b-12", "fleet_1", 12, ""),
        ("a-b-13", None, None, None),
        ("child", "agent_0", None, None),
    ]
    assert [tuple(row) for row in labels] == [("Agent", "default", "k", "v", "child")]
    migrate.check(empty_url)


def test_the_head_is_the_newest_revision() -> None:
    """The constant that saves a start the import of Alembic is the head of the scripts."""
    config = Config()
    config.set_main_option("script_location", str(migrating.FOLDER))
    assert ScriptDirectory.from_config(config).get_heads() == [migrate.HEAD]


def test_at_the_head_alembic_is_not_imported(sqlite_url: str) -> None:
    """A start that has nothing to migrate does not pay for it."""
    code = (
        "import sys; from controlplane.store import migrate; "
        f"migrate.upgrade({sqlite_url!r}); print('alembic' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout.strip() == "False"


def test_two_that_migrate_at_once_do_not_meet(empty_url: str) -> None:
    """Both end well, and the tables are there once."""
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=migrate.upgrade, args=(empty_url,)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(30)
    assert [process.exitcode for process in both] == [0, 0]
    migrate.check(empty_url)


def test_a_newer_database_is_refused(database_url: str) -> None:
    """A release that does not know the revision says so, and touches nothing."""
    engine = create_engine(database_url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(Refusal, match="9999"):
        migrate.upgrade(database_url)
    assert tables(database_url) == set(SQLModel.metadata.tables)


def test_the_file_is_private(tmp_path: Path) -> None:
    """Only its owner reads the SQLite file."""
    migrate.upgrade(f"sqlite:///{tmp_path}/steward.db")
    assert (tmp_path / "steward.db").stat().st_mode & 0o077 == 0


def test_documents_stay_what_they_are(empty_url: str) -> None:
    """What was kept as text is read as it was after an upgrade; what was packed is text again after a downgrade."""
    migrate.upgrade(empty_url, "0003")
    engine = create_engine(empty_url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        for plan_id, change_id in (("open", None), ("done", "chg_1")):
            plan = {"plan_id": plan_id, "change_id": change_id}
            columns = "plan_id, principal, namespace, body, decisions, created_at, expires_at, change_id"
            fixed = "'p', 'd', '[\"old\"]', '{\"wanted\":[]}', 0, 0"
            connection.execute(text(f"INSERT INTO plan ({columns}) VALUES (:plan_id, {fixed}, :change_id)"), plan)
    migrate.upgrade(empty_url)
    plans = PlanRow.__table__  # type: ignore[attr-defined]
    new = {"plan_id": "new", "principal": "p", "namespace": "d", "created_at": 0, "expires_at": 0}
    with engine.begin() as connection:
        found = connection.execute(select(plans.c.plan_id, plans.c.body, plans.c.decisions)).all()
        connection.execute(plans.insert(), new | {"body": '{"new":1}', "decisions": "{}"})
    assert {tuple(it) for it in found} == {("open", '["old"]', '{"wanted":[]}'), ("done", '["old"]', "")}
    migrate.downgrade(empty_url, "0003")
    with engine.begin() as connection:
        bodies = connection.execute(text("SELECT plan_id, body FROM plan")).all()
    engine.dispose()
    assert {tuple(it) for it in bodies} == {("open", '["old"]'), ("done", '["old"]'), ("new", '{"new":1}')}


def test_sums_of_use_stay(empty_url: str) -> None:
    """By the fleet that it was of after an upgrade, and of all fleets after a downgrade."""
    migrate.upgrade(empty_url, "0015")
    engine = create_engine(empty_url.replace("postgresql:", "postgresql+psycopg:"))
    put = text(
        "INSERT INTO usage (namespace, agent, hour, effect, connection, meter, fleet, amount)"
        " VALUES ('default', 'echo', 1, '', '', 'turns', :fleet, :amount)"
    )
    with engine.begin() as connection:
        connection.execute(put, {"fleet": "a", "amount": 2})
    migrate.upgrade(empty_url)
    with engine.begin() as connection:
        connection.execute(put, {"fleet": "b", "amount": 3})
        found = connection.execute(text("SELECT fleet, chain, amount FROM usage ORDER BY fleet")).all()
        assert [tuple(it) for it in found] == [("a", "", 2), ("b", "", 3)]
        connection.execute(
            text(
                "INSERT INTO usage_common (namespace, agent, hour, effect, connection, fleet, turns, cpu_s)"
                " VALUES ('default', 'echo', 1, '', '', 'b', 4, 6)"
            )
        )
        found = connection.execute(text("SELECT fleet, meter, amount FROM used ORDER BY meter, amount")).all()
    assert [tuple(it) for it in found] == [("b", "cpu_s", 6), ("a", "turns", 2), ("b", "turns", 3), ("b", "turns", 4)]
    migrate.downgrade(empty_url, "0015")
    with engine.begin() as connection:
        found = connection.execute(text("SELECT fleet, meter, amount FROM usage ORDER BY meter")).all()
    assert [tuple(it) for it in found] == [("b", "cpu_s", 6), ("b", "turns", 9)]
    engine.dispose()
