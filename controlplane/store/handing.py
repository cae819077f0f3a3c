"""Guards: what a unit finds that builds on one which may be still on its way. As in `statements`.

They change nothing. They stand first in their unit, and nothing of it goes before what the writer was given earlier.
"""

from controlplane.store.batching import Guard

IN_INBOX = Guard("UPDATE inbox SET attempts = attempts WHERE agent = ? AND message_id = ?")
ANSWERED = Guard(
    "UPDATE journal SET outcome = outcome"
    " WHERE turn_id = ? AND branch = ? AND position = ? AND outcome = 'answered' AND finished_at = ?"
)
CONFIRMED = Guard(
    "UPDATE journal SET outcome = outcome WHERE turn_id = ? AND branch = ? AND position = ? AND finished_at = ?"
)
