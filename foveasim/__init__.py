"""foveasim: watch a machine look. The public face, and what every room stands on: types, errors, names, units.

>>> picture = open_scenes("photos").picture(0).image  # (H, W, 3) uint8
>>> foveate(picture, (120, 80)).shape == picture.shape  # what an eye sees that fixates x = 120, y = 80 px
True

==============================  ==================================================================================
What an eye sees                ``foveate``, and with more say ``make_retina``, ``Retina``, ``Masking``, ``as_scene``
Eyes that move                  ``Simulator``, ``Saccades``, ``open_scenes``, ``SceneSource``, ``Picture``
What passes between them        ``Scene``, ``Glimpse``, ``Belief``, ``Saccade``, ``Prediction``
What is not seen                ``Predictor``
Who looks                       ``make_agent``, ``Agent``, ``rollout``, ``Rollout``, ``compare``, ``CompareConfig``
Scanpaths                       ``Scanpath`` and its ``Frame``, ``read_scanpaths``, ``write_scanpaths``; in raw gaze
                                ``find_fixations_ivt`` and ``find_fixations_idt``; of and for other packages
                                ``from_pysaliency``, ``to_pysaliency``, ``from_pymovements``, ``to_pymovements``
Episodes that repeat themselves ``RecordEpisode``, ``read_episode``, ``replay_episode``
The command line                ``main(["watch", "--agent", "walk"])``
Errors raised on purpose        ``FoveasimError`` is the base of all, and ``errors`` holds them
==============================  ==================================================================================

Further names are in ``foveasim.envs`` and ``foveasim.envs.wrappers`` (Gymnasium), ``foveasim.agents``,
``foveasim.agents.mim`` (networks that predict) and ``foveasim.agents.rl`` (training of gaze policies),
``foveasim.metrics`` and ``foveasim.errors``; ``dir()`` of each lists them. These names are public. What is not named
here or there may move without notice.

Importing foveasim registers the Gymnasium ids ``foveasim/Glimpse-v0``, ``foveasim/Search-v0`` and
``foveasim/Classify-v0``; everything else is loaded when it is first used.
"""

from gymnasium.envs.registration import register

from foveasim.lazy_names import lazy_names

_NAMES = {
    "Agent": "foveasim.agents.interface:Agent",
    "Belief": "foveasim.types:Belief",
    "CompareConfig": "foveasim.experiments.compare.command:CompareConfig",
    "FoveasimError": "foveasim.errors:FoveasimError",
    "Frame": "foveasim.types:Frame",
    "Glimpse": "foveasim.types:Glimpse",
    "Masking": "foveasim.eye.masks:Masking",
    "Picture": "foveasim.images.picture:Picture",
    "Prediction": "foveasim.types:Prediction",
    "Predictor": "foveasim.agents.mim.predictor:Predictor",
    "RecordEpisode": "foveasim.recording.replay:RecordEpisode",
    "Retina": "foveasim.eye.retina:Retina",
    "Rollout": "foveasim.agents.rollout:Rollout",
    "Saccade": "foveasim.types:Saccade",
    "Saccades": "foveasim.eye.saccade:Saccades",
    "Scanpath": "foveasim.scanpath.scanpath:Scanpath",
    "Scene": "foveasim.types:Scene",
    "SceneSource": "foveasim.scenes.source:SceneSource",
    "Simulator": "foveasim.simulator.simulator:Simulator",
    "agents": "foveasim.agents",
    "as_scene": "foveasim.eye.foveated:as_scene",
    "compare": "foveasim.experiments.compare.command:compare",
    "envs": "foveasim.envs",
    "errors": "foveasim.errors",
    "find_fixations_idt": "foveasim.scanpath.fixations:find_fixations_idt",
    "find_fixations_ivt": "foveasim.scanpath.fixations:find_fixations_ivt",
    "foveate": "foveasim.eye.foveated:foveate",
    "from_pymovements": "foveasim.scanpath.interchange:from_pymovements",
    "from_pysaliency": "foveasim.scanpath.interchange:from_pysaliency",
    "main": "foveasim.cli.commands:main",
    "make_agent": "foveasim.agents.loading:make_agent",
    "make_retina": "foveasim.eye.retina:make_retina",
    "metrics": "foveasim.metrics",
    "open_scenes": "foveasim.scenes.source:open_scenes",
    "read_episode": "foveasim.recording.episode:read_episode",
    "read_scanpaths": "foveasim.scanpath.trackers.reading:read_scanpaths",
    "replay_episode": "foveasim.recording.replay:replay_episode",
    "rollout": "foveasim.agents.rollout:rollout",
    "to_pymovements": "foveasim.scanpath.interchange:to_pymovements",
    "to_pysaliency": "foveasim.scanpath.interchange:to_pysaliency",
    "write_scanpaths": "foveasim.scanpath.scanpath:write_scanpaths",
}

__version__ = "0.1.0"
__all__ = ["__version__", *_NAMES]
__getattr__, __dir__ = lazy_names(__name__, _NAMES)

register(
    id="foveasim/Glimpse-v0",
    entry_point="foveasim.envs.single:FoveaEnv",
    vector_entry_point="foveasim.envs.vector:FoveaVectorEnv",
)
register(
    id="foveasim/Classify-v0",
    entry_point="foveasim.envs.tasks.classify:ClassifyEnv",
    vector_entry_point="foveasim.envs.tasks.classify:ClassifyVectorEnv",
)
register(
    id="foveasim/Search-v0",
    entry_point="foveasim.envs.tasks.search:SearchEnv",
    vector_entry_point="foveasim.envs.tasks.search:SearchVectorEnv",
)
