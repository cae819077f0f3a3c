"""What a gate knows of effects beyond their records, as long as there is room: who forgets it waits longer, no more."""

KNOWN_MAX = 10_000
Key = tuple[str, str, int]  # turn, branch and position


class Known(set[Key]):
    """Effects that this gate alone knows something of; what it forgets is waited for until its send_by and timeout."""

    def add(self, key: Key) -> None:
        if len(self) >= KNOWN_MAX:
            self.clear()
        super().add(key)
