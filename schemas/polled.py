"""What a route's poll says of itself: since when it fails and why, and that it works again."""

from typing import Literal

from schemas.base import Output, Time

POLL = "poll"  # the kind of the entry
FAILED, RECOVERED = "route.poll_failed", "route.poll_recovered"
REASON_CHARS_MAX, DETAIL_CHARS_MAX = 100, 500
Fault = Literal["away", "wrong"]


class PollFailing(Output):
    """Why nothing is read, and since when. `away`: the database was not reached, or did not answer in time, which may
    pass. `wrong`: it was asked in vain, and somebody has to change the poll, its connection, or the database."""

    since: Time
    fault: Fault
    reason: str
    detail: str
