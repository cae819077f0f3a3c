"""What the model is there to find, planted: each is found by a history that meets it."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from controlplane.effects import consuming
from controlplane.mesh import delivery, membership, publishing
from controlplane.store import queues
from controlplane.store.direct import DirectWriter
from tests.mesh.model import LAG_MAX, NEWS, Act, Mesh

pytestmark = pytest.mark.anyio
ALWAYS_READY = queues.QUEUE_PUT.replace("THEN 0 ELSE 1 END", "THEN 1 ELSE 1 END")
BOTH = [Act("join", 0), Act("join", 1)]
TWO = [Act("publish", key="a"), Act("publish", key="a")]
DEFECTS: dict[str, tuple[Any, str, Any, Sequence[Act]]] = {
    "a key that two hold": (queues, "QUEUE_PUT", ALWAYS_READY, [*BOTH, *TWO, *TWO]),
    "a key that nobody lets go": (consuming, "finished_of_queue", lambda turn: [], [*BOTH, *TWO, Act("handle", 0)]),
    "work that a leaver takes along": (queues, "BACK", (), [*BOTH, *TWO, Act("leave", 0), Act("leave", 1)]),
    "a gap that is not told": (
        delivery.Delivery,
        "_gap",
        lambda self, it, until: [(delivery.sql.SUBSCRIPTION_ADVANCE, (until, it.channel, it.agent, it.position), 1)],
        [Act("join", 0, NEWS), *[Act("publish", channel=NEWS)] * (4 * LAG_MAX), Act("retain")],
    ),
    "a membership that is not kept": (membership, "joined", lambda *_: [], [Act("join", 0), Act("publish")]),
    "a message that is taken twice": (
        publishing.sql,
        "CHANNEL_PUT",
        publishing.sql.CHANNEL_PUT.replace("m.message_id = ?", "m.message_id = ? || 'x'"),
        [Act("publish", fate="untold")],
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
async def test_a_defect_is_found(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, defect: str, request: pytest.FixtureRequest
) -> None:
    """And without it the same history is fine."""
    room, name, wrong, history = DEFECTS[defect]
    direct = DirectWriter(sqlite_url)
    request.addfinalizer(direct.close)
    assert _broken(lambda: Mesh(sqlite_url, direct), history) is None
    monkeypatch.setattr(room, name, wrong)
    assert _broken(lambda: Mesh(sqlite_url, direct), history) is not None


def _broken(make: Callable[[], Mesh], history: Sequence[Act]) -> AssertionError | None:
    mesh = make()
    try:
        for act in history:
            mesh.act(act)
        mesh.rest()
        mesh.check()
    except AssertionError as error:
        return error
    finally:
        mesh.close()
    return None
