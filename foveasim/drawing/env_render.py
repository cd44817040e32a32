"""What Gymnasium's ``render`` shows of an env: one lane as a picture, and a plain window for such pictures."""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from foveasim import validation
from foveasim.drawing.render import LATEST, Heat, View, render
from foveasim.errors import NoDisplayError
from foveasim.simulator.simulator import Simulator

__all__ = ["FrameWindow", "display_driver", "render_lane"]


def render_lane(
    simulator: Simulator,
    lane: int,
    path_px: Sequence[tuple[float, float]],
    coverage: Sequence[float],
    size: tuple[int, int],
    budget: int,
    reward: float | None,
    task: Mapping[str, Any] | None = None,
) -> NDArray[np.uint8]:
    """Draw one lane: the scene with its scanpath, the glimpse, belief and acuity.

    Args:
        simulator: After it looked.
        lane: Which.
        path_px: The fixations of this episode so far, px of the scene, oldest first.
        coverage: Acuity-weighted share of the scene seen after each of them.
        size: (H, W) of the picture, px.
        budget: Saccades of an episode.
        reward: Of the last saccade, or None.
        task: What a task adds, fields of :class:`foveasim.drawing.render.View` by name.

    Returns:
        (H, W, 3) uint8.
    """
    scene, belief = simulator.scene_image(lane), simulator.belief
    glimpse = simulator.seen[0]
    x, y = simulator.fixation_px[lane].tolist()
    view = View(
        scene=scene.cpu().numpy(),
        glimpse=np.asarray(glimpse[lane] if isinstance(glimpse, np.ndarray) else glimpse[lane].cpu()),
        belief=belief.image[lane].cpu().numpy(),
        heat=Heat("acuity", belief.acuity[lane].cpu().numpy(), "0", "1"),
        fixation_px=np.array(path_px[-LATEST:], np.float32).reshape(-1, 2),
        gaze_px=(x, y),
        earlier=max(0, len(path_px) - LATEST),
        errors=tuple(100 * share for share in coverage[-LATEST:]),
        plot=("coverage", "acuity-weighted share of the scene, %"),
        budget=budget + 1,
        retina=simulator.retina.name,
        scene_name=simulator.names[lane],
        reward=reward,
        **(task or {}),
    )
    return render(view, validation.size_hw("render_size", tuple(size), 120))


class FrameWindow:
    """A window that shows pictures, for ``render_mode="human"``. There is one at a time, as pygame has one display.

    Args:
        size: (H, W) of the pictures, px.
        fps: At most so many a second.

    Raises:
        NoDisplayError: There is no display, or another window is open on it.
    """

    _open: ClassVar[weakref.ref[FrameWindow] | None] = None  # weak: an env that is forgotten gives its window free

    def __init__(self, size: tuple[int, int], fps: float) -> None:
        if FrameWindow._open is not None and FrameWindow._open() is not None:
            raise NoDisplayError(
                "another env shows its window, and there can be one at a time. Close that env first, "
                "or use render_mode='rgb_array' for one of them."
            )
        # Who names a driver that shows nothing, as tests do, means it.
        if display_driver() is None and "SDL_VIDEODRIVER" not in os.environ:
            raise NoDisplayError(
                "there is no display to open a window on; use render_mode='rgb_array', or 'foveasim record'."
            )
        import pygame

        pygame.display.init()
        pygame.display.set_caption("foveasim")
        self._screen = pygame.display.set_mode((size[1], size[0]))
        self._clock = pygame.time.Clock()
        self._fps = fps
        FrameWindow._open = weakref.ref(self)

    def show(self, picture: NDArray[np.uint8]) -> None:
        """Show a picture, (H, W, 3) uint8, for 1 / fps seconds at least."""
        import pygame

        pygame.event.pump()
        pygame.surfarray.blit_array(self._screen, picture.swapaxes(0, 1))
        pygame.display.flip()
        self._clock.tick(self._fps)

    def close(self) -> None:
        """Close the window; again does nothing."""
        import pygame

        if FrameWindow._open is not None and FrameWindow._open() is self:
            FrameWindow._open = None
            pygame.display.quit()


def display_driver() -> str | None:
    """Start pygame's display and return the name of its driver, or None where there is no screen.

    SDL takes a driver that shows nothing, and says nothing, where it finds no screen.
    """
    chosen = os.environ.get("SDL_VIDEODRIVER")
    if sys.platform.startswith("linux") and not chosen and not os.environ.get("DISPLAY"):
        if not os.environ.get("WAYLAND_DISPLAY"):
            return None
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    os.environ.setdefault("SDL_VIDEO_X11_WMCLASS", "foveasim")  # what a desktop groups windows by
    os.environ.setdefault("SDL_WINDOWS_DPI_AWARENESS", "permonitorv2")  # or Windows would blow the window up, blurred
    import pygame

    try:
        pygame.display.init()
    except pygame.error:
        return None
    driver = str(pygame.display.get_driver())
    if driver in ("offscreen", "dummy"):
        pygame.display.quit()
        return None
    return driver
