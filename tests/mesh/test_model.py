"""Whatever befalls the mesh, it is what its model says: joins, leaves, failures, gaps, a death at each commit."""

import os

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from controlplane.mesh import membership
from controlplane.store.direct import DirectWriter
from tests.mesh.meshgate import AGENTS, KEYS, NEWS, QUEUE, Act
from tests.mesh.model import GIVEN_UP, Mesh

pytestmark = pytest.mark.anyio
bounded = settings(
    max_examples=int(os.environ.get("STEWARD_TEST_EXAMPLES", "12")),  # a soak asks for more
    deadline=None,
    database=None,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
VERBS = (
    ("publish",) * 6 + ("handle",) * 4 + ("join",) * 3
    + ("leave", "open", "spoil", "retain", "dies", "delay", "due", "cancel", "late", "stop", "wake", "redrive")
    + ("revoke", "use", "use", "vanish")
)  # fmt: skip
ACTS = st.builds(
    Act,
    verb=st.sampled_from(VERBS),
    agent=st.integers(0, AGENTS - 1),
    channel=st.sampled_from((QUEUE, NEWS)),
    key=st.sampled_from(KEYS),
    priority=st.sampled_from((0, 0, 0, 3, 9)),
    fate=st.sampled_from(("well", "well", "before", "untold")),
    ttl=st.booleans(),
    swept=st.booleans(),
)


@bounded
@given(history=st.lists(ACTS, min_size=10, max_size=60))
async def test_the_mesh_is_what_its_model_says(database_url: str, writer: DirectWriter, history: list[Act]) -> None:
    """Nothing lost, nothing doubled, the most urgent first, order per key, one holder of a key, gaps told, members
    remembered; what is delayed is due or cancelled, what expired is given up, a guest has nothing uninvited, and what
    only its use made vanishes wholly."""
    mesh = Mesh(database_url, writer)
    try:
        for act in history:
            mesh.act(act)
        mesh.rest()
        mesh.check()
    finally:
        mesh.close()


async def test_what_is_urgent_goes_before_the_next_of_a_key_that_is_held(
    database_url: str, writer: DirectWriter
) -> None:
    """A member that may hold several gets no more of its key while another key is more urgent."""
    mesh = Mesh(database_url, writer)
    try:
        mesh.act(Act("join", 0))
        for _ in range(6):
            mesh.act(Act("publish", key="a"))
        mesh.act(Act("publish", key="b", priority=9))
        for _ in range(7):
            mesh.act(Act("handle", 0))
        assert [it["key"] for it in mesh.finished] == ["a", "b", "a", "a", "a", "a", "a"]
        mesh.rest()
        mesh.check()
    finally:
        mesh.close()


@pytest.mark.parametrize("going", [False, True])
@pytest.mark.parametrize("begun", [False, True])
async def test_what_is_given_back_is_good_for_as_long_as_it_was(
    database_url: str, writer: DirectWriter, *, going: bool, begun: bool
) -> None:
    """Whoever has not begun it leaves, or is removed, and nobody else is there: it is given up in the queue when its
    time is over; what has no such time stays, and so does what an attempt was made of."""
    mesh = Mesh(database_url, writer)
    try:
        mesh.act(Act("join", 0))
        for ttl in (True, False):
            mesh.act(Act("publish", ttl=ttl))
        assert mesh.reader.rows("SELECT position FROM queued") == []
        if begun:
            assert mesh._write([("UPDATE inbox SET attempts = 1", (), -1)])
        if going:
            assert mesh._write([*membership.going("u0"), ("UPDATE agent SET stopped = 1", (), -1)])
        else:
            mesh.act(Act("leave", 0))
        mesh.act(Act("leave", 1))  # time for the gate
        assert [it[0] for it in mesh.reader.rows("SELECT position FROM queued ORDER BY position")] == [1, 2]
        assert mesh.reader.rows(GIVEN_UP) == []
        for _ in range(2):
            mesh.act(Act("late"))
        assert [it[0] for it in mesh.reader.rows("SELECT position FROM queued ORDER BY position")] == [1, 2][
            not begun :
        ]
        letters = [] if begun else [("EXPIRED", "publish", QUEUE)]
        assert mesh.reader.rows("SELECT reason, trigger, channel FROM dead_letter") == letters
    finally:
        mesh.close()
