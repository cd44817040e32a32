"""Ctrl-C and SIGTERM while files are written: the first asks for an end, and none leaves a file half written."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

__all__ = ["GRACE_S", "Stop", "held"]

GRACE_S = 3.0
"""How long a step may go on after SIGTERM, so that all is written within five seconds: its sender may soon kill."""

_ENDS = (signal.SIGINT, signal.SIGTERM)
_ALARM = () if sys.platform == "win32" else (signal.SIGALRM,)
_Handler = Callable[[int, FrameType | None], object]


class Stop:
    """Asks for an end in place of ``KeyboardInterrupt``.

    Args:
        notice: Said on the terminal when the first signal only sets ``asked``.
        stubborn: Every signal only sets ``asked``.

    Attributes:
        patient: Whether the first signal only sets ``asked``. Without, and at the second Ctrl-C or :data:`GRACE_S`
            after SIGTERM, KeyboardInterrupt is raised.
        asked: Whether a signal came.
        finishing: Whether signals are ignored: the end has begun.
    """

    def __init__(self, notice: str = "", *, stubborn: bool = False) -> None:
        self.patient = self.asked = self.finishing = False
        self._notice, self._stubborn, self._armed = notice, stubborn, False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Take a signal.

        Raises:
            KeyboardInterrupt: See ``patient``.
        """
        if self.finishing:
            return
        if self._stubborn or (self.patient and not self.asked):
            first, self.asked = not self.asked, True
            if first and self._notice:
                with suppress(OSError):  # straight to the terminal: the signal may have come in the midst of a print
                    os.write(2, f"\n{self._notice}\n".encode())
            if number == signal.SIGTERM and not self._stubborn:
                self._arm()
            return
        if self.patient and number == signal.SIGTERM:  # again: the alarm is set
            return
        self.asked = self.finishing = True
        raise KeyboardInterrupt

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take Ctrl-C and SIGTERM inside the block. Only the main thread may; others do nothing."""
        with _handling(self, _ENDS):
            try:
                yield
            finally:
                self._disarm()

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Raise at the first signal while the block lasts, or now if one came: what it does may be left undone.

        Raises:
            KeyboardInterrupt: A signal came.
        """
        before = self.patient
        self.patient = self._stubborn
        try:
            if self.asked and not self.finishing and not self._stubborn:
                self.finishing = True
                raise KeyboardInterrupt
            yield
        finally:
            self.patient = before

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
def held() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back until the block is over, then deliver what came."""
    came: list[int] = []
    with _handling(lambda number, frame: came.append(number), _ENDS + _ALARM):
        yield
    for number in dict.fromkeys(came):
        signal.raise_signal(number)


@contextmanager
def _handling(handler: _Handler, numbers: tuple[signal.Signals, ...]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in numbers}
    # Who starts a program with a signal ignored means it: nohup, a shell that runs it in the background.
    taken = [number for number in numbers if before[number] is not signal.SIG_IGN]
    try:
        for number in taken:
            signal.signal(number, handler)
        yield
    finally:
        for number in taken:
            old = before[number]
            signal.signal(number, signal.SIG_DFL if old is None else old)  # None: not set from Python
