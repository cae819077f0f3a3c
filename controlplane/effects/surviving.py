"""One of many steps, done again and again: what is wrong with it is told, and keeps none of the others."""

import logging
from collections.abc import Callable

from controlplane.effects.reading import Away

log = logging.getLogger("steward.gate")


def survived(step: Callable[[], None], what: str) -> bool:
    """Whether the step was done. Raises `Away` alone: without the database, the others can not be done either."""
    try:
        step()
    except Away:
        raise
    except Exception:
        log.exception("%s has failed; the others go on", what)
        return False
    return True
