"""What the window remembers of a session: status messages and their time."""

from __future__ import annotations

from foveasim.viewer.scanpath_recorder import StatusMessages


def test_a_message_lasts_six_seconds_and_stands_beside_others() -> None:
    messages = StatusMessages()
    messages.add("one")
    messages.pass_time(5999)
    messages.add("two")
    assert messages.text == "one · two"
    messages.pass_time(5999)
    assert messages.text == "one · two"
    messages.pass_time(1)
    assert messages.text == ""


def test_what_is_said_once_replaces_what_was_said_once_before() -> None:
    """Whoever goes through all retinas reads about the present one, not about all that were passed."""
    messages = StatusMessages()
    messages.add("a scene was skipped")
    messages.add_once("not trained on two_spot")
    messages.add_once("not trained on patches")
    assert messages.text == "a scene was skipped · not trained on patches"
    messages.pass_time(6000)
    messages.add_once("not trained on two_spot")
    assert messages.text == ""
