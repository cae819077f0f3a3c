"""`sql.query` and `sql.execute` through the gate: counted before they are judged."""

from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from tests.gate.shop import GROW, execute, scene
from tests.protocols.database import Database, database

pytestmark = pytest.mark.anyio
VERDICTS = "SELECT verdict, outcome, result FROM journal WHERE kind = 'effect' ORDER BY recorded_at"


@pytest.fixture(params=["sqlite", "postgresql"])
async def far(request: pytest.FixtureRequest, anyio_backend: str, tmp_path: Path) -> AsyncIterator[Database]:
    """The shop, on both databases."""
    server = request.getfixturevalue("postgres") if request.param == "postgresql" else None
    (tmp_path / "far").mkdir()
    async with database(request.param, tmp_path / "far", server) as found:
        yield found


async def test_a_change_is_judged_by_what_it_would_touch(quick_url: str, far: Database) -> None:
    """The count stands in the verdict; beyond what the connection allows it is denied, and nothing is written."""
    async with scene(quick_url, far) as gate:
        found = await gate.ask(
            "noter", {"effect": "sql.query", "connection": "shop", "statement": "SELECT 1 AS a"}, "1"
        )
        assert found == {"columns": ["a"], "rows": [{"a": 1}], "truncated": False, "row_count": 1}
        assert await gate.ask("noter", execute(GROW, id=3), "2") == {"rows_changed": 1}
        assert await gate.ask("noter", execute("DELETE FROM item"), "3") == "LIMIT_REACHED"
        assert await gate.ask("noter", execute("DROP TABLE item"), "4") == "INVALID_VALUE"
        assert await gate.ask("noter", execute("DELETE FROM item WHERE absent = 1"), "5") == "EFFECT_FAILED"
        assert far.do("SELECT count(*), sum(stock) FROM item") == [(10, 46)]
        verdicts = [orjson.loads(it[0]) for it in await gate.rows(VERDICTS)]
        assert [it["features"].get("rows") for it in verdicts] == [
            None, {"known": True, "value": 1}, {"known": True, "value": 10}, None, None,
        ]  # fmt: skip
        assert [(it["outcome"], it["rules"]) for it in verdicts[1:3]] == [
            ("allow", ["grant"]), ("deny", ["rows_max"]),
        ]  # fmt: skip
        assert all(it[1] == "failed" for it in (await gate.rows(VERDICTS))[2:])
