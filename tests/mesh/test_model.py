"""Whatever befalls the mesh, it is what its model says: joins, leaves, failures, gaps, a death at each commit."""

import os

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from controlplane.store.direct import DirectWriter
from tests.mesh.model import AGENTS, KEYS, NEWS, QUEUE, Act, Mesh

pytestmark = pytest.mark.anyio
bounded = settings(
    max_examples=int(os.environ.get("STEWARD_TEST_EXAMPLES", "12")),  # a soak asks for more
    deadline=None,
    database=None,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
VERBS = ("publish",) * 6 + ("join", "join", "leave", "open", "spoil", "retain", "dies") + ("handle",) * 4
ACTS = st.builds(
    Act,
    verb=st.sampled_from(VERBS),
    agent=st.integers(0, AGENTS - 1),
    channel=st.sampled_from((QUEUE, NEWS)),
    key=st.sampled_from(KEYS),
    priority=st.sampled_from((0, 0, 0, 3, 9)),
    fate=st.sampled_from(("well", "well", "before", "untold")),
)


@bounded
@given(history=st.lists(ACTS, min_size=10, max_size=60))
async def test_the_mesh_is_what_its_model_says(database_url: str, writer: DirectWriter, history: list[Act]) -> None:
    """Nothing lost, nothing doubled, order per key, one holder of a key, gaps told, members remembered."""
    mesh = Mesh(database_url, writer)
    try:
        for act in history:
            mesh.act(act)
        mesh.rest()
        mesh.check()
    finally:
        mesh.close()
