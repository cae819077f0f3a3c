"""Bounds of what an entry of a journal may say: kept at the call by the SDK, and at the commit by the gate."""

SECONDS_MAX = 10 * 366 * 86_400
EVERY_S_MIN = 0.05  # of a timer that repeats
NAME_CHARS_MAX = 200  # of a timer's name, and of a key
PURPOSE_CHARS_MAX = 2000
GRANTS_MAX = 100
