"""What the model is there to find, planted: each is found by a history that meets it."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from controlplane.effects import consuming
from controlplane.mesh import delivery, guests, membership, publishing
from controlplane.store import queues
from controlplane.store.direct import DirectWriter
from tests.mesh.meshgate import GUEST, LAG_MAX, NEWS, Act
from tests.mesh.model import Mesh

pytestmark = pytest.mark.anyio
ALWAYS_READY = queues.QUEUE_PUT.replace("THEN 0 ELSE 1 END", "THEN 1 ELSE 1 END")
BOTH = [Act("join", 0), Act("join", 1)]
TWO = [Act("publish", key="a"), Act("publish", key="a")]
DEFECTS: dict[str, tuple[Any, str, Any, Sequence[Act]]] = {
    "a key that two hold": (queues, "QUEUE_PUT", ALWAYS_READY, [*BOTH, *TWO, *TWO]),
    "a key that nobody lets go": (
        consuming,
        "finished_of_queue",
        lambda turn: [],
        [Act("join", 0), Act("publish", key="a"), Act("stop", 0), Act("publish", key="a"), Act("handle", 0)],
    ),
    "work that a leaver takes along": (queues, "BACK", (), [*BOTH, *TWO, Act("leave", 0), Act("leave", 1)]),
    "a gap that is not told": (
        delivery.Delivery,
        "_gap",
        lambda self, it, until: [(delivery.sql.SUBSCRIPTION_ADVANCE, (until, it.channel, it.agent, it.position), 1)],
        [Act("join", 0, NEWS), *[Act("publish", channel=NEWS)] * (4 * LAG_MAX), Act("retain")],
    ),
    "a membership that is not kept": (membership, "joined", lambda *_: [], [Act("join", 0), Act("publish")]),
    "what is urgent behind a key that is held": (
        queues,
        "OF_HELD_KEYS",
        queues.OF_HELD_KEYS.replace("MIN(x.own_rank)", "MIN(x.own_rank) - 100"),
        [Act("join", 0), *[Act("publish", key="a")] * 4, Act("publish", key="b", priority=9), Act("handle", 0)],
    ),
    "a cancelled message that is taken in again": (
        queues,
        "CANCEL_DELAYED",
        "DELETE FROM delayed WHERE ? > 0 AND kind = ? AND namespace = ? AND name = ? AND message_id = ?",
        [Act("delay"), Act("cancel")],
    ),
    "a guest whose invitation nobody looks at": (
        guests.Guests,
        "sweep",
        lambda self, now: None,
        [Act("join", GUEST, NEWS), Act("publish", channel=NEWS), Act("revoke"), Act("publish", channel=NEWS)],
    ),
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
