"""What the window remembers of a session: notices and their time."""

from __future__ import annotations

from foveasim.viewer.scanpath_recorder import Notices


def test_a_notice_lasts_six_seconds_and_stands_beside_others() -> None:
    notices = Notices()
    notices.say("one")
    notices.pass_time(5999)
    notices.say("two")
    assert notices.text == "one · two"
    notices.pass_time(5999)
    assert notices.text == "one · two"
    notices.pass_time(1)
    assert notices.text == ""


def test_what_is_said_once_replaces_what_was_said_once_before() -> None:
    """Whoever goes through all retinas reads about the present one, not about all that were passed."""
    notices = Notices()
    notices.say("a scene was skipped")
    notices.say_once("not trained on two_spot")
    notices.say_once("not trained on patches")
    assert notices.text == "a scene was skipped · not trained on patches"
    notices.pass_time(6000)
    notices.say_once("not trained on two_spot")
    assert notices.text == ""
