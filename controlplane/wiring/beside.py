"""What a plane looks at of the processes beside it, whoever keeps them running."""

from collections import deque
from typing import Protocol

from schemas.records import ProcessView


class Beside(Protocol):
    """The gate, Ray and the placer of one installation."""

    ray_state: str
    started: deque[tuple[str, int]]
    """Names and pids of those started of which nobody was told yet."""

    @property
    def dashboard(self) -> str | None:
        """Where Ray's dashboard is, if it has one."""

    def troubles(self) -> list[str]:
        """What keeps those from staying that end again and again."""

    def views(self) -> list[ProcessView]:
        """The processes, as `system.status` shows them."""
