"""The faults of `tests/faults`, for the mesh."""

from tests.faults.conftest import arming as arming
from tests.faults.conftest import fired as fired
from tests.faults.conftest import own_server as own_server
