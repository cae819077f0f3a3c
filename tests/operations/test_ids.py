"""Ids that begin with a moment: what comes to be at one time lies together in indexes."""

from schemas.base import fresh_id, short_id, turn_of

AT = 1_790_000_000.7
SECOND = f"{int(AT):08x}"


def test_a_turn_begins_with_the_second_of_its_message() -> None:
    """So do what it sends, and the reply to that; each is the same again for the same cause."""
    message = fresh_id("msg", AT)
    turn = turn_of("agent_a", message)
    asked = short_id("msg", turn, "0", 3, near=turn)
    reply = short_id("msg", "reply", f"{asked}.4", near=f"{asked}.4")
    made = [message, turn, asked, reply]
    assert [it.partition("_")[2][:8] for it in made] == [SECOND] * 4
    assert len({it[-20:] for it in made}) == 4
    assert turn_of("agent_a", message) == turn != turn_of("agent_b", message)


def test_messages_that_begin_with_none_have_ids_as_ever() -> None:
    """Those of clients, and those that were there before: their turns must be found again."""
    for message in ("order-17", "msg_0123456789abcdef0123456789", "msg_0123456789ABCDEF0123456789ab", ""):
        assert turn_of("agent_a", message) == short_id("turn", "agent_a", message)


def test_two_fresh_ids_differ() -> None:
    """Within one second, too."""
    assert len({fresh_id("msg", AT) for _ in range(100)}) == 100
