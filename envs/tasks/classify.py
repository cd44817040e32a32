"""Naming a scene's class from glimpses: what was seen is judged by a frozen readout, and stopping early pays."""

from __future__ import annotations

import math
import os
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from foveasim import validation
from foveasim.envs.resets import is_indices
from foveasim.envs.single import FoveaEnv
from foveasim.envs.tasks.cell_readout import READOUT_FILES, Readout, fit_cells
from foveasim.envs.vector import FoveaVectorEnv
from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.images.datasets import IMAGENETTE_CLASSES
from foveasim.scenes.signs import SignScenes
from foveasim.scenes.source import SceneSource, open_scenes

__all__ = ["ClassifyEnv", "ClassifyVectorEnv"]

_NOT_TAKEN = ("reward", "reward_options", "belief")


class ClassifyVectorEnv(FoveaVectorEnv):
    """Naming the class of B scenes from glimpses.

    ## Description
    An eye looks at a scene of one of C classes. After every glimpse a *readout*, a function that never learns while the
    env runs, gives each class a probability from what has been seen. The agent chooses where to look, and when it has
    seen enough. It is paid for what its glimpses reveal about the class, and pays for each of them.

    The class is not part of the action: a policy of stable-baselines3 then has an action of three numbers, reward says
    at every step what a glimpse was worth, and how well two policies look can be compared, for the same readout judges
    both. The readout is frozen, so that the same seeds and actions give the same rewards. Without a network of one's
    own there is ``readout="cells"``; one on the latent of a network is fitted, saved and named by its file, see
    :func:`foveasim.agents.readout.belief_readout_fit.fit_belief_readout`.

    ## Observation Space
    As of ``foveasim/Glimpse-v0`` with ``belief``, and ``posterior`` (C,) float32 in [0, 1]: the readout's probability
    of each class. It is worked out from what was seen and nothing else.

    ## Action Space
    As of ``foveasim/Glimpse-v0``, with a stop action: ``Box(-1, 1, (3,))``, (x, y, stop), stops where the last number
    is above 0; in grid mode the cell after the last one stops.

    ## Rewards
    ``log_likelihood_gain``: by how much the logarithm of the probability of the true class rose, in nats, and
    ``glimpse_cost``: minus ``cost_per_glimpse`` for each saccade. The gains of an episode add up to what was known at
    its end more than after the first glimpse; the stop action itself gains and costs nothing.

    Probabilities are mixed with a guess: (1 - lapse) p + lapse / C, in ``posterior`` and in rewards. No answer then
    costs more than log(C / lapse) nats, however sure a readout was of a wrong class.

    ## Starting State
    A scene drawn by (seed, episode); the eye at its centre. The first glimpse is part of the reset, and free.
    ``reset(options={"scene": index, "fixation": (x, y)})`` fixes either. An image as ``scene`` has no class: refused.

    ## Episode End
    By the stop action, or after ``budget`` saccades, the episode *terminates*.

    ``info`` has, beside what ``foveasim/Glimpse-v0`` reports: ``predicted``, the number of the most probable class;
    ``correct``; ``log_likelihood``, of the true class, nats; ``glimpses``, how many there were, the first included. The
    true class is ``label``, given at resets.

    ## Arguments
    See below; ``gym.make_vec("foveasim/Classify-v0", num_envs=64, scenes=open_scenes("imagenette", split="train"),
    readout="beliefs.safetensors")``.

    ## Version History
    * v0: first version.

    Args:
        num_envs: B.
        scenes: Labelled scenes, or what ``open_scenes`` takes; None makes ``SignScenes``.
        split: Of the scenes, for sources that have splits: "train" or "test" of ``SignScenes``, also "val" of
            Imagenette.
        readout: A :class:`foveasim.envs.tasks.cell_readout.Readout`; the ``.safetensors`` file of one; or "cells",
        which fits
            one without a network to the training split of ``SignScenes``, or to ``readout_scenes``.
        readout_scenes: Labelled scenes that "cells" is fitted to, other ones than it is tested on.
        cost_per_glimpse: What a saccade costs, nats.
        lapse: Share of the probability that is spread over all classes.
        size: (H, W) of the observation, px.
        fit: How scenes are fitted to it.
        retina: A retina or its name. The default sees a tenth of the scene sharply and nothing of the rest.
        retina_options: Options of a retina given by name; of the default, None hides nine tenths.
        stop: Whether there is a stop action.
        **options: Of ``FoveaVectorEnv``, but for its reward and ``belief``, which is always observed.

    Attributes:
        readout: What names the class.
        classes: Names of the C classes, in the order of ``posterior``.
        thought: What else the readout made of belief, tensors with a leading lane axis; () of readouts that have no
            ``think``, which returns the log-probabilities and such a tuple. It is for whoever trains a policy on the
            same network and would otherwise have to ask it again.

    Raises:
        InvalidTypeError: ``readout`` is no readout.
        InvalidValueError: An option out of range, scenes without classes, or a readout of other classes.
        UnknownNameError: An unknown name.
        SceneError: Scenes that cannot be read.
        WeightsError: A readout's file that cannot be used.

    Reference:
        Mnih et al. 2014, Recurrent models of visual attention, NeurIPS (classification from glimpses). Wichmann and
        Hill 2001, The psychometric function I, Perception and Psychophysics 63:1293-1313 (lapse rate).
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        scenes: object = None,
        split: str | None = None,
        readout: Readout | str | os.PathLike[str] = "cells",
        readout_scenes: object = None,
        cost_per_glimpse: float = 0.05,
        lapse: float = 0.01,
        size: tuple[int, int] = (96, 96),
        fit: str = "crop",
        retina: Any = "disc",
        retina_options: dict[str, Any] | None = None,
        stop: bool = True,
        **options: Any,
    ) -> None:
        refused = sorted(set(_NOT_TAKEN) & set(options))
        if refused:
            raise InvalidValueError(f"{', '.join(refused)}: not for this task, which judges and shows belief.")
        self.cost_per_glimpse = validation.number("cost_per_glimpse", cost_per_glimpse, 0, 1e6)
        num_envs = validation.whole("num_envs", num_envs, 1, 1 << 20)
        validation.check_lane_memory(num_envs, size)
        self.lapse = validation.number("lapse", lapse, 0, 1, open_low=True, open_high=True)
        source = _labelled(scenes, split, size)
        self.readout = _readout(readout, source, scenes, readout_scenes, size, fit)
        self.classes = source.labels
        self._columns = _columns(self.readout.classes, self.classes)
        self._posterior = np.zeros((num_envs, len(self.classes)), np.float32)
        self._log_likelihood = np.zeros(num_envs, np.float32)
        self._label = np.zeros(num_envs, np.int64)
        self._judged_step = np.zeros(num_envs, np.int64)
        self._unread = np.ones(num_envs, bool)
        self.thought: tuple[torch.Tensor, ...] = ()
        if isinstance(retina, str) and retina == "disc" and retina_options is None:
            retina_options = {"hidden_ratio": 0.9}
        super().__init__(
            num_envs,
            scenes=source,
            size=size,
            fit=fit,
            retina=retina,
            retina_options=retina_options,
            stop=stop,
            belief=True,
            **options,
        )
        self._owns_scenes = not isinstance(scenes, SceneSource)

    def begin(self, seed: Any, options: dict[str, Any] | None) -> NDArray[np.bool_]:
        """Begin episodes; see ``FoveaVectorEnv.begin``."""
        scene = (options or {}).get("scene")
        known = isinstance(scene, int | np.integer) and not isinstance(scene, bool)
        if scene is not None and not known and not is_indices(scene):
            raise InvalidValueError(
                f"options['scene'] must be the index of a scene, for another image has no class; got "
                f"{type(scene).__name__}. Images of your own lie in folders named after their classes: scenes='folder'."
            )
        return super().begin(seed, options)

    def on_begin(self, lanes: NDArray[np.bool_]) -> None:
        """Read the classes of the lanes that begin, (B,) bool; there is no glimpse yet."""
        label = self.as_array(self.simulator.label)
        unknown = lanes & ((label < 0) | (label >= len(self.classes)))
        if unknown.any():
            names = [self.simulator.names[lane] for lane in np.flatnonzero(unknown)]
            raise InvalidValueError(f"scenes must all have a class; {names[0]!r} has none. Give labelled scenes.")
        self._label[lanes] = label[lanes]
        self._judged_step[lanes] = 0
        self._unread |= lanes

    def score_saccades(self) -> tuple[dict[str, Any], None]:
        """Return the terms ``log_likelihood_gain`` and ``glimpse_cost``."""
        fresh, before = self._unread.copy(), self._log_likelihood.copy()
        step = self.as_array(self.simulator.measured.step)
        moved = step > self._judged_step
        self._judged_step = step.copy()
        self._unread |= moved
        self._read()
        gain = np.where(fresh, np.float32(0), self._log_likelihood - before)
        terms = {
            "log_likelihood_gain": self.as_output(gain),
            "glimpse_cost": self.as_output(moved * np.float32(-self.cost_per_glimpse)),
        }
        return terms, None

    def task_spaces(self) -> dict[str, gym.Space[Any]]:
        """Return the space of ``posterior``."""
        return {"posterior": gym.spaces.Box(0.0, 1.0, (len(self.classes),), np.float32)}

    def task_observation(self) -> dict[str, Any]:
        """Return ``posterior`` of every lane."""
        self._read()
        return {"posterior": self.as_output(self._posterior.copy())}

    def task_info(self) -> dict[str, NDArray[Any]]:
        """Return what ``info`` says about the classes, lane by lane."""
        self._read()
        predicted = self._posterior.argmax(1)
        return {
            "predicted": predicted,
            "correct": predicted == self._label,
            "log_likelihood": self._log_likelihood.copy(),
            "glimpses": self.as_array(self.simulator.measured.step) + 1,
        }

    def _read(self) -> None:
        """Apply the readout to the lanes that have seen something since it was last applied."""
        lanes = np.flatnonzero(self._unread)
        if not lanes.size:
            return
        belief = self.simulator.belief
        image, acuity = belief.image, belief.acuity
        if lanes.size < self.num_envs:
            at = torch.from_numpy(lanes).to(image.device)
            image, acuity = image[at], acuity[at]
        think = getattr(self.readout, "think", None)
        with torch.inference_mode():
            log_probability, thought = (self.readout(image, acuity), ()) if think is None else think(image, acuity)
        share = self._shares(log_probability, len(image))
        self._store_thought(lanes, thought)
        self._posterior[lanes] = share
        self._log_likelihood[lanes] = np.log(share[np.arange(lanes.size), self._label[lanes]])
        self._unread[lanes] = False

    def posterior_of(self, image: torch.Tensor, acuity: torch.Tensor) -> NDArray[np.float32]:
        """Return what ``posterior`` would be with other beliefs, (N, C) float32.

        Args:
            image: (N, H, W, 3) uint8.
            acuity: (N, H, W) uint8.

        Raises:
            InvalidTypeError: The readout's answer is no tensor of the right shape.
            InvalidValueError: It holds no logarithms of probabilities.
        """
        with torch.inference_mode():
            return self._shares(self.readout(image, acuity), len(image)).astype(np.float32)

    def _shares(self, log_probability: object, count: int) -> NDArray[np.float64]:
        """Return the probabilities of the scenes' classes, (count, C), from what the readout returned."""
        if not isinstance(log_probability, torch.Tensor) or tuple(log_probability.shape) != (count, len(self.classes)):
            came = (
                tuple(log_probability.shape)
                if isinstance(log_probability, torch.Tensor)
                else type(log_probability).__name__
            )
            raise InvalidTypeError(
                f"readout must return a tensor of log-probabilities {(count, len(self.classes))}; got {came}."
            )
        share = np.exp(log_probability[:, self._columns].double().cpu().numpy())
        total = share.sum(1)
        if not bool((np.abs(total - 1) < 1e-3).all()):
            raise InvalidValueError(
                f"readout must return logarithms of probabilities that add up to 1; their sum is {float(total[0]):g}. "
                "End it with log_softmax(1)."
            )
        found: NDArray[np.float64] = (1 - self.lapse) * share / total[:, None] + self.lapse / len(self.classes)
        return found

    def _store_thought(self, lanes: NDArray[np.intp], thought: tuple[torch.Tensor, ...]) -> None:
        """Store what the readout computed for some lanes, in fresh tensors where it was applied to all."""
        if lanes.size == self.num_envs or not thought:
            self.thought = thought
            return
        if not self.thought:
            self.thought = tuple(one.new_zeros((self.num_envs, *one.shape[1:])) for one in thought)
        at = torch.from_numpy(lanes).to(thought[0].device)
        with torch.inference_mode():
            both = zip(self.thought, thought, strict=True)
            self.thought = tuple(whole.index_copy(0, at, part) for whole, part in both)

    @property
    def min_log_likelihood(self) -> float:
        """What the true class's log-likelihood cannot fall below, nats: log(lapse / C)."""
        return math.log(self.lapse / len(self.classes))


class ClassifyEnv(FoveaEnv):
    """Naming a scene's class with one eye.

    Everything is as in :class:`ClassifyVectorEnv`, which this env holds one lane of, without the lane axis and in
    NumPy: its sections Description, Observation Space, Action Space, Rewards, Starting State, Episode End and Arguments
    hold here too.

    ## Version History
    * v0: first version.

    Args:
        render_mode: See ``FoveaEnv``.
        render_size: (H, W) of what is drawn, px.
        **options: Of ``ClassifyVectorEnv``.

    Example:
        >>> env = gym.make("foveasim/Classify-v0", cost_per_glimpse=0.1)
        >>> observation, info = env.reset(seed=0)
        >>> observation["posterior"].shape, info["glimpses"]
        ((4,), 1)
    """

    many = ClassifyVectorEnv


def _labelled(scenes: object, split: str | None, size: tuple[int, int]) -> SceneSource:
    if scenes is None:
        return SignScenes(size=size, split="train" if split is None else split)
    source = open_scenes(scenes) if split is None else open_scenes(scenes, split=split)
    if len(source.labels) < 2 or source.moving:
        raise InvalidValueError(
            f"scenes must be still, of at least two classes; got {source.labels!r}"
            f"{', moving' if source.moving else ''}. Give a folder of folders named after classes, or 'imagenette'."
        )
    return source


def _readout(
    readout: object, source: SceneSource, scenes: object, readout_scenes: object, size: tuple[int, int], fit: str
) -> Readout:
    cells = isinstance(readout, str) and readout == "cells"
    if not cells and readout_scenes is not None:
        raise InvalidValueError("readout_scenes is for readout='cells'; any other readout has been fitted.")
    if cells:
        if readout_scenes is None and scenes is not None:
            raise InvalidValueError(
                "readout='cells' needs readout_scenes, labelled scenes to be fitted to, where scenes are given. "
                "Or give the file of a readout on a network's latent, see "
                "foveasim.agents.readout.belief_readout_fit.fit_belief_readout: readout='beliefs.safetensors'."
            )
        return fit_cells(_labelled(readout_scenes, None, size), size, fit)
    if isinstance(readout, str | os.PathLike):
        return READOUT_FILES.factory("belief")(readout)
    if not isinstance(readout, Readout) or isinstance(readout, type):
        raise InvalidTypeError(
            "readout must be 'cells', a .safetensors file, or a function of image and acuity with classes; got "
            f"{readout!r}."
        )
    return readout


def _columns(theirs: tuple[str, ...], ours: tuple[str, ...]) -> list[int]:
    """Where each of the scenes' classes stands among the readout's."""
    known, wanted = [_plain(name) for name in theirs], [_plain(name) for name in ours]
    if sorted(known) != sorted(wanted) or len(set(wanted)) < len(wanted):
        raise InvalidValueError(
            f"readout must know the classes of the scenes, {', '.join(ours[:12])}; it knows {', '.join(theirs[:12])}. "
            "Fit one to scenes of the same classes."
        )
    return [known.index(name) for name in wanted]


def _plain(name: str) -> str:
    """A class's name without what a folder's name may do to it: Imagenette's number, underscores, small letters."""
    return IMAGENETTE_CLASSES.get(name, name).replace("_", " ").casefold()
