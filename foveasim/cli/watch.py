"""The live window: watch an eye move over real images while a network predicts what it does not see."""

from __future__ import annotations

from dataclasses import dataclass

from foveasim.drawing.env_render import display_driver
from foveasim.recording.record import record_frames
from foveasim.runs.outputs import find_free_names
from foveasim.viewer.compile_kernels import compile_kernels
from foveasim.viewer.config import LookConfig
from foveasim.viewer.window import Window

__all__ = ["WatchConfig", "open_window", "watch"]


@dataclass
class WatchConfig(LookConfig):
    """What to watch, and how.

    Attributes:
        headless: Open no window, record the same view to a file instead.
        out: File to record to without a window: .mp4, .gif, or a name without an ending for a folder of PNG frames.
            null records foveasim.mp4 and foveasim.gif, or foveasim-2.mp4 and foveasim-2.gif and so on where one exists.
        seconds: Length of that recording.
        fps: Its pictures per second.
        overwrite: Replace a file of that name that exists. What is looked at is never replaced.
        fullscreen: Fill the screen.
        folder: Where screenshots and videos of the window go: foveasim-0001.png, foveasim-0001.mp4, the first number
            that is free.
    """

    headless: bool = False
    out: str | None = None
    seconds: float = 8.0
    fps: float = 30.0
    overwrite: bool = False
    fullscreen: bool = False
    folder: str = "."


def watch(config: WatchConfig) -> int:
    """Open the window, or record where there is none.

    Args:
        config: What to watch.

    Returns:
        0; 130 if a recording was ended by Ctrl-C or SIGTERM.

    Raises:
        FoveasimError: A name, a file or a number that cannot be used.
    """
    if config.headless:
        return _record_instead(config)
    if display_driver() is None:
        from rich.console import Console

        Console().print(
            f"There is no display, so [bold]{config.seconds:g} s[/bold] of the same view are recorded instead. "
            "(With a display, this opens a window. To record on purpose: --headless --out FILE --seconds N.)"
        )
        return _record_instead(config)
    window = open_window(config)
    try:
        window.run()
    finally:
        window.close()
    return 0


def _record_instead(config: WatchConfig) -> int:
    outs = find_free_names("foveasim.mp4", "foveasim.gif") if config.out is None else [config.out]
    return record_frames(config, outs, config.seconds, config.fps, overwrite=config.overwrite)


def open_window(config: WatchConfig) -> Window:
    """Open the window that a config describes.

    Raises:
        FoveasimError: A name, a file or a number that cannot be used.
    """
    compile_kernels([config.make_retina()])
    session = config.open_session(threaded=True)
    size = (int(config.size[0]), int(config.size[1]))
    return Window(session, size=size, fullscreen=config.fullscreen, folder=config.folder, agent=config.agent)
