"""Who looks at what, and how: what the window, a recording and a replay open a session by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from foveasim import validation
from foveasim.agents.loading import make_agent
from foveasim.drawing.layout import MIN_SIDE_PX
from foveasim.errors import FoveasimError, InvalidValueError
from foveasim.eye.retina import Retina, make_retina
from foveasim.eye.saccade import Saccades
from foveasim.runs.outputs import Inputs, find_inputs
from foveasim.viewer.session import Session

__all__ = ["LookConfig", "reachable_fovea"]


@dataclass
class LookConfig:
    """Who looks at what, and how.

    Attributes:
        scenes: photos, webcam, noise, shapes, ... or the path of an image, a video or a folder.
        agent: Who looks: a registered name (foveasim info lists them), the file of a trained policy, or
            package.module:Class.
        agent_arguments: Arguments of the agent, such as {temperature: 0.5}.
        retina: What the eye sees: pyramid, disc, two_spot, patches, window, multiscale, log_polar or full.
        retina_options: Options of the retina, such as {preset: paper}.
        network: What predicts the rest: the name of a shipped network, a .safetensors file, or none.
        seed: Seed of everything random.
        budget: Fixations on each scene before the next one comes; 0 stays for good.
        dwell_ms: How long a fixation lasts.
        speed: How fast time runs, 1 for real time.
        fovea: Size of the fovea, 1 for the retina's own.
        max_amplitude_deg: Longest saccade, deg; a farther target is undershot. null sets no limit.
        scatter: Standard deviation of where a saccade lands, as a share of its amplitude.
        half_life_ms: Time after which half of what was seen is forgotten; null forgets nothing.
        px_per_deg: Pixels of the scenes for one degree of visual angle; null makes their short side span 27.4 degrees.
        size: Height and width of the picture, px.
    """

    scenes: str = "photos"
    agent: str = "uncertainty"
    agent_arguments: dict[str, Any] = field(default_factory=dict)
    retina: str = "disc"
    retina_options: dict[str, Any] = field(default_factory=dict)
    network: str | None = "unet"
    seed: int = 0
    budget: int = 12
    dwell_ms: float = 300.0
    speed: float = 1.0
    fovea: float = 1.0
    max_amplitude_deg: float | None = None
    scatter: float = 0.0
    half_life_ms: float | None = None
    px_per_deg: float | None = None
    size: tuple[int, int] = (720, 1280)

    def inputs(self) -> Inputs:
        """Return the files that this reads, which nothing that it writes may replace."""
        named = self.agent, self.agent_arguments, self.retina, self.retina_options, self.network
        return find_inputs(*named, sources=self.scenes)

    def make_retina(self) -> Retina:
        """Build the retina that this describes.

        Raises:
            FoveasimError: A name or an option that cannot be used.
        """
        return make_retina(self.retina, **self.retina_options)

    def open_session(self, *, threaded: bool) -> Session:
        """Open the session that this describes.

        Raises:
            FoveasimError: A name, a file or a number that cannot be used.
        """
        validation.size_hw("size", tuple(self.size), minimum=MIN_SIDE_PX)
        # By its name, the session says who looks as the person did.
        arguments = self.agent_arguments
        agent = make_agent(self.agent, **{"seed": self.seed, **arguments}) if arguments else self.agent
        session = Session(
            self.scenes,
            agent,
            self.make_retina(),
            None if self.network in (None, "", "none") else self.network,
            seed=self.seed,
            budget=self.budget,
            dwell_ms=self.dwell_ms,
            half_life_ms=self.half_life_ms,
            px_per_deg=self.px_per_deg,
            saccades=Saccades(self.max_amplitude_deg, self.scatter),
            threaded=threaded,
        )
        try:
            session.set_speed(self.speed)
            validation.number("fovea", self.fovea, 0, open_low=True)
            maximum = reachable_fovea(session.retina, self.fovea)
            if self.fovea > 1 and 1 < maximum < self.fovea:
                raise InvalidValueError(f"fovea must be at most {maximum:.2f} for {self.retina!r}; got {self.fovea}.")
            if self.fovea != 1 and not session.scale_fovea(self.fovea):
                raise InvalidValueError(
                    f"fovea must be from 0.25 to 4, and 1 for a retina without a fovea to scale; got {self.fovea} for "
                    f"{self.retina!r}."
                )
        except FoveasimError:
            session.close()
            raise
        return session


def reachable_fovea(retina: Retina, factor: float) -> float:
    """Return how far a retina's fovea can be scaled towards a factor: a disc ends where it hides nothing.

    Args:
        retina: The retina.
        factor: Above 0, and not 1.

    Example:
        >>> round(reachable_fovea(make_retina("disc", hidden_ratio=0.75), 3.0), 3)
        2.0
    """
    end = retina.scaled(factor)
    if end != retina.scaled(factor * (2.0 if factor > 1 else 0.5)):
        return factor
    near, far = 1.0, factor
    for _ in range(40):
        middle = (near + far) / 2
        near, far = (near, middle) if retina.scaled(middle) == end else (middle, far)
    return far
