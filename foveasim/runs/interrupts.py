"""Ctrl-C and SIGTERM while files are written: the first asks for an end, and none leaves a file half written."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

__all__ = ["GRACE_S", "InterruptFlag", "defer_signals"]

GRACE_S = 3.0
"""How long a step may go on after SIGTERM, so that all is written within five seconds: its sender may soon kill."""

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ALARM = () if sys.platform == "win32" else (signal.SIGALRM,)
_Handler = Callable[[int, FrameType | None], object]


class InterruptFlag:
    """Requests an end in place of ``KeyboardInterrupt``.

    Args:
        message: Printed on the terminal when the first signal only sets ``requested``.
        never_raise: Every signal only sets ``requested``.

    Attributes:
        graceful: Whether the first signal only sets ``requested``. Without, and at the second Ctrl-C or :data:`GRACE_S`
            after SIGTERM, KeyboardInterrupt is raised.
        requested: Whether a signal came.
        finishing: Whether signals are ignored: the end has begun.
    """

    def __init__(self, message: str = "", *, never_raise: bool = False) -> None:
        self.graceful = self.requested = self.finishing = False
        self._message, self._never_raise, self._armed = message, never_raise, False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Take a signal.

        Raises:
            KeyboardInterrupt: See ``graceful``.
        """
        if self.finishing:
            return
        if self._never_raise or (self.graceful and not self.requested):
            first, self.requested = not self.requested, True
            if first and self._message:
                with suppress(OSError):  # straight to the terminal: the signal may have come in the midst of a print
                    os.write(2, f"\n{self._message}\n".encode())
            if number == signal.SIGTERM and not self._never_raise:
                self._arm()
            return
        if self.graceful and number == signal.SIGTERM:  # again: the alarm is set
            return
        self.requested = self.finishing = True
        raise KeyboardInterrupt

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take Ctrl-C and SIGTERM inside the block. Only the main thread may; others do nothing."""
        with _handling(self, _STOP_SIGNALS):
            try:
                yield
            finally:
                self._disarm()

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Raise at the first signal while the block lasts, or now if one came: what it does may be left undone.

        Raises:
            KeyboardInterrupt: A signal came.
        """
        before = self.graceful
        self.graceful = self._never_raise
        try:
            if self.requested and not self.finishing and not self._never_raise:
                self.finishing = True
                raise KeyboardInterrupt
            yield
        finally:
            self.graceful = before

    def _arm(self) -> None:
        """Ask again in a while, for a step that takes too long."""
        if sys.platform != "win32":
            self._armed = True
            self._before_alarm = signal.signal(signal.SIGALRM, self)
            signal.setitimer(signal.ITIMER_REAL, GRACE_S)

    def _disarm(self) -> None:
        if sys.platform != "win32" and self._armed:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._before_alarm or signal.SIG_DFL)
            self._armed = False


@contextmanager
def defer_signals() -> Iterator[None]:
    """Defer Ctrl-C and SIGTERM until the block is over, then deliver what came."""
    received: list[int] = []
    with _handling(lambda number, frame: received.append(number), _STOP_SIGNALS + _ALARM):
        yield
    for number in dict.fromkeys(received):
        signal.raise_signal(number)


@contextmanager
def _handling(handler: _Handler, numbers: tuple[signal.Signals, ...]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in numbers}
    # Who starts a program with a signal ignored means it: nohup, a shell that runs it in the background.
    handled = [number for number in numbers if before[number] is not signal.SIG_IGN]
    try:
        for number in handled:
            signal.signal(number, handler)
        yield
    finally:
        for number in handled:
            old = before[number]
            signal.signal(number, signal.SIG_DFL if old is None else old)  # None: not set from Python
