"""Ctrl-C and SIGTERM: what asks for an end, what insists, and what waits."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from foveasim.runs import interrupts
from foveasim.runs.interrupts import InterruptFlag, defer_signals

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    """Ctrl-C and SIGTERM as a terminal has them."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_first_signal_asks_and_the_second_ctrl_c_insists(capfd: pytest.CaptureFixture[str]) -> None:
    stop = InterruptFlag("ending soon")
    with stop.listening():
        stop.graceful = True
        signal.raise_signal(signal.SIGINT)
        assert stop.requested and "ending soon" in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # the end has begun
        assert capfd.readouterr().err == ""


def test_a_second_sigterm_waits_but_a_slow_step_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "GRACE_S", 0.05)
    stop = InterruptFlag()
    with stop.listening():
        stop.graceful = True
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            time.sleep(10)


def test_a_step_that_ends_in_time_is_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "GRACE_S", 0.02)
    stop = InterruptFlag()
    with stop.listening():
        stop.graceful = True
        signal.raise_signal(signal.SIGTERM)
        stop.finishing = True
        time.sleep(0.05)
    with InterruptFlag().listening():
        pass
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


def test_what_may_be_left_undone_is_left_at_once() -> None:
    stop = InterruptFlag()
    with stop.listening():
        stop.graceful = True
        with pytest.raises(KeyboardInterrupt), stop.interruptible():
            signal.raise_signal(signal.SIGTERM)
        assert stop.graceful and stop.requested and stop.finishing
    late = InterruptFlag()
    with late.listening():
        late.graceful = True
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), late.interruptible():
            raise AssertionError("begun although an end was asked for")


def test_one_that_never_raises_only_takes_note() -> None:
    stop = InterruptFlag(never_raise=True)
    with stop.listening():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            with stop.interruptible():
                signal.raise_signal(number)
    assert stop.requested


def test_signals_that_are_ignored_stay_so() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell starts what runs in the background
    stop = InterruptFlag()
    with stop.listening(), defer_signals():
        signal.raise_signal(signal.SIGINT)
        assert not stop.requested
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_deferred_signals_come_when_the_block_is_over() -> None:
    reached = False
    with pytest.raises(KeyboardInterrupt), defer_signals():
        signal.raise_signal(signal.SIGINT)
        reached = True
    assert reached


def test_other_threads_leave_signals_alone() -> None:
    seen: list[object] = []

    def look() -> None:
        with InterruptFlag().listening(), defer_signals():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
