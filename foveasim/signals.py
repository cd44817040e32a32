"""Ctrl-C and SIGTERM while files are written: the first asks for an end, and none leaves a file half written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Stop", "held"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_Handler = Callable[[int, FrameType | None], object]


class Stop:
    """Asks for an end in place of ``KeyboardInterrupt``.

    Attributes:
        patient: Whether the first signal only sets ``asked``; without, and at the second, KeyboardInterrupt is raised.
        asked: Whether a signal came.
        finishing: Whether signals are ignored: the end has begun.
    """

    def __init__(self) -> None:
        self.patient = self.asked = self.finishing = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Take a signal.

        Raises:
            KeyboardInterrupt: See ``patient``.
        """
        if self.finishing:
            return
        if self.patient and not self.asked:
            self.asked = True
            return
        self.asked = self.finishing = True
        raise KeyboardInterrupt

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take Ctrl-C and SIGTERM inside the block. Only the main thread may; others do nothing."""
        with _handling(self):
            yield


@contextmanager
def held() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back until the block is over, then deliver what came."""
    came: list[int] = []
    with _handling(lambda number, frame: came.append(number)):
        yield
    for number in dict.fromkeys(came):
        signal.raise_signal(number)


@contextmanager
def _handling(handler: _Handler) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, signal.SIG_DFL if old is None else old)  # None: not set from Python
