"""An eye for any env with pixels: what it may see, how actions are split, and that lanes equal single envs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import FrameStackObservation
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3

from foveasim.envs.wrappers.observation import FoveateObservation, FoveateVectorObservation
from foveasim.errors import InvalidTypeError, InvalidValueError, UnknownNameError
from foveasim.eye.retina import RETINAS
from foveasim.eye.saccade import Saccades

SIZE = (40, 56)
FRAMES = np.random.default_rng(0).integers(0, 256, (300, *SIZE, 3), dtype=np.uint8)
MOTORS = [
    Box(np.array([-1, 0], np.float32), np.array([1, 3], np.float32)),
    Discrete(3, start=2),
    MultiDiscrete([2, 4]),
    MultiBinary(3),
]


class Film(gym.Env[Any, Any]):
    """Shows frame after frame from a seeded start on. Each episode ends after a drawn number of steps."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012

    def __init__(
        self,
        motor: gym.Space[Any] = MOTORS[1],
        frames: np.ndarray = FRAMES,
        high: float = 255,
        length: int | None = None,
        extra: bool = False,
        render_mode: str | None = None,
    ) -> None:
        picture = Box(0, high, frames.shape[1:], frames.dtype.type)
        self.extra, self.frames, self.length, self.render_mode = extra, frames, length, render_mode
        self.observation_space = Dict({"view": picture, "place": Box(0, 1e6, (1,), np.float32)}) if extra else picture
        self.action_space = motor
        self.actions: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = int(self.np_random.integers(100))
        self.left = self.length or int(self.np_random.integers(2, 6))
        return self._seen(), {"place": self.place}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        self.actions.append(action)
        self.place += 1
        self.left -= 1
        return self._seen(), 1.0, self.left <= 0, False, {"place": self.place}

    def _seen(self) -> Any:
        frame = self.frames[self.place % len(self.frames)].copy()
        return {"view": frame, "place": np.array([self.place], np.float32)} if self.extra else frame

    def render(self) -> np.ndarray:
        return self.frames[self.place % len(self.frames)].copy()


def look(x: float, y: float, motor: Any = 2) -> dict[str, Any]:
    return {"motor": motor, "gaze": np.array([x, y], np.float32)}


def same(one: Any, two: Any) -> None:
    assert one.keys() == two.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], two[key], err_msg=key)


# Gymnasium's and stable-baselines3's rules


@pytest.mark.parametrize("motor", MOTORS, ids=lambda motor: type(motor).__name__)
@pytest.mark.parametrize("gaze", ["absolute", "relative"])
@pytest.mark.parametrize("flat", [True, False], ids=["flat", "dict"])
def test_both_checkers_pass_without_a_warning(motor: gym.Space[Any], gaze: str, flat: bool) -> None:
    env = FoveateObservation(Film(motor, length=60, extra=True), retina="disc", gaze=gaze, flat=flat, belief=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*is different from the unwrapped version")  # it is a wrapper
        warnings.filterwarnings("ignore", ".*symmetric and normalized")  # the bounds of MOTORS[0] are not
        check_env(env, skip_render_check=True)
        if flat:  # stable-baselines3 has no Dict actions
            check_env_for_sb3(env, skip_render_check=True)


@pytest.mark.parametrize("retina", list(RETINAS))
def test_every_retina_serves(retina: str) -> None:
    patch = retina in ("window", "multiscale", "log_polar")
    env = FoveateObservation(Film(), retina=retina, belief=True, patch=patch)
    for seen in (env.reset(seed=1)[0], env.step(look(0.4, -1))[0]):
        assert env.observation_space.contains(seen)
        assert ("patch" in seen) == patch


# What a step does, and what is seen


def test_reset_looks_at_the_centre() -> None:
    env = FoveateObservation(Film(), retina="disc")
    observation, info = env.reset(seed=0)
    np.testing.assert_array_equal(observation["fixation"], [0, 0])
    np.testing.assert_array_equal(info["fixation_px"], [28, 20])
    assert info["amplitude_deg"] == info["duration_ms"] == 0
    env.step(look(0.5, 0.5))
    np.testing.assert_array_equal(env.reset()[0]["fixation"], [0, 0])


def test_a_step_shows_the_frame_that_the_motor_action_led_to() -> None:
    env = FoveateObservation(Film(), retina="full")
    observation, info = env.reset(seed=0)
    np.testing.assert_array_equal(observation["glimpse"], FRAMES[info["place"]])
    observation, _, _, _, after = env.step(look(0.3, 0.3))
    assert after["place"] == info["place"] + 1
    np.testing.assert_array_equal(observation["glimpse"], FRAMES[after["place"]])


def test_absolute_gaze_is_a_place_and_relative_gaze_a_displacement() -> None:
    env = FoveateObservation(Film(length=9), retina="disc", px_per_deg=7.0)
    env.reset(seed=0)
    observation, _, _, _, info = env.step(look(0.5, -0.5))
    np.testing.assert_allclose(info["fixation_px"], [42, 10])
    np.testing.assert_allclose(observation["fixation"], [0.5, -0.5])
    assert info["amplitude_deg"] == pytest.approx(np.hypot(14, 10) / 7)
    assert info["duration_ms"] == pytest.approx(2.2 * np.hypot(14, 10) / 7 + 21, rel=1e-6)
    env = FoveateObservation(Film(length=9), retina="disc", gaze="relative")
    env.reset(seed=0)
    env.step(look(0.5, -0.5))
    observation, _, _, _, info = env.step(look(0.75, 0.25))
    np.testing.assert_allclose(info["target_px"], [63, 15])
    np.testing.assert_allclose(info["fixation_px"], [56, 15])  # gaze stops at the edge
    np.testing.assert_allclose(observation["fixation"], [1, -0.25])


def test_saccades_obey_the_eye() -> None:
    eye = FoveateObservation(Film(), retina="disc", px_per_deg=2.0, saccades=Saccades(max_amplitude_deg=5))
    eye.reset(seed=0)
    np.testing.assert_allclose(eye.step(look(1, 0))[4]["fixation_px"], [38, 20], rtol=1e-6)


@pytest.mark.parametrize("retina", [name for name in RETINAS if name != "full"])
def test_hidden_pixels_never_reach_an_observation(retina: str) -> None:
    path = [look(0.3, -0.2), look(-0.9, 0.8), look(1.0, 1.0), look(0.0, 0.0)]

    def episode(frames: np.ndarray) -> list[dict[str, np.ndarray]]:
        env = FoveateObservation(Film(frames=frames, length=9), retina=retina, belief=True, half_life_ms=30)
        return [env.reset(seed=3)[0], *(env.step(action)[0] for action in path)]

    start = Film()
    start.reset(seed=3)
    seen, altered = episode(FRAMES), FRAMES.copy()
    for frame, observation in zip(altered[start.place :], seen, strict=False):
        hidden = observation["acuity"][..., 0] == 0
        frame[hidden] = 255 - frame[hidden]
    for before, after in zip(seen, episode(altered), strict=True):
        same(before, after)
    if (seen[0]["acuity"] == 0).any():
        visible = altered.copy()
        visible[start.place][seen[0]["acuity"][..., 0] == 255] = 0
        assert (episode(visible)[0]["glimpse"] != seen[0]["glimpse"]).any()


def test_belief_holds_the_newest_and_fades() -> None:
    env = FoveateObservation(Film(length=9), retina="disc", belief=True, half_life_ms=40, step_ms=20)
    first, info = env.reset(seed=0)
    seen = first["acuity"][..., 0] == 255
    away, _, _, _, _ = env.step(look(1, 1))
    gone = seen & (away["acuity"][..., 0] == 0)
    assert gone.any()
    np.testing.assert_array_equal(away["belief"][gone], FRAMES[info["place"]][gone])
    assert (away["belief_acuity"][gone] == int(255 * 2**-0.5)).all()
    again, _, _, _, after = env.step(look(1, 1))
    assert (again["belief_acuity"][gone] == 127).all()
    back, _, _, _, after = env.step(look(0, 0))
    np.testing.assert_array_equal(back["belief"][seen], FRAMES[after["place"]][seen])
    np.testing.assert_array_equal(first["belief"][seen], FRAMES[info["place"]][seen])  # not written to again
    keeps = FoveateObservation(Film(length=9), retina="disc", belief=True, half_life_ms=None)
    keeps.reset(seed=0)
    assert (keeps.step(look(1, 1))[0]["belief_acuity"][gone] == 255).all()


def test_a_step_lasts_as_the_env_says() -> None:
    env = FoveateObservation(Film(length=9), retina="disc", belief=True, half_life_ms=20)  # 50 frames a second
    seen = env.reset(seed=0)[0]["acuity"] == 255
    away = env.step(look(1, 1))[0]
    assert (away["belief_acuity"][seen & (away["acuity"] == 0)] == 127).all()
    film = Film()
    film.metadata = {"render_modes": []}
    with pytest.raises(InvalidValueError, match="step_ms"):
        FoveateObservation(film, belief=True)
    FoveateObservation(film)


# The forms of pixels


GREY = FRAMES[..., :1]


@pytest.mark.parametrize(
    ("frames", "high"),
    [
        (GREY, 255),
        (GREY[..., 0], 255),
        ((GREY / 255).astype(np.float32), 1),
        ((GREY[..., 0] / 255).astype(np.float64), 1),
        (GREY.astype(np.float32), 255),
        (GREY.astype(np.int64), 255),
    ],
    ids=["HW1", "HW", "float", "double", "float 255", "int"],
)
def test_grey_and_floats_are_seen_as_what_they_are(frames: np.ndarray, high: float) -> None:
    expected = FoveateObservation(Film(frames=np.repeat(GREY, 3, -1)), retina="pyramid")
    env = FoveateObservation(Film(frames=frames, high=high), retina="pyramid")
    same(expected.reset(seed=5)[0], env.reset(seed=5)[0])
    same(expected.step(look(0.5, 0))[0], env.step(look(0.5, 0))[0])


def test_black_and_white_pixels() -> None:
    film = Film(frames=(GREY > 127).astype(np.uint8), high=1)
    assert set(np.unique(FoveateObservation(film, retina="full").reset(seed=0)[0]["glimpse"])) == {0, 255}


@pytest.mark.parametrize("bad", [np.nan, 1.5, -0.1])
def test_pixels_out_of_their_bounds_are_refused(bad: float) -> None:
    frames = np.zeros((2, 16, 16), np.float32)
    frames[:, 3, 4] = bad
    with pytest.raises(InvalidValueError, match=r"must lie in \[0, 1\]"):
        FoveateObservation(Film(frames=frames, high=1)).reset(seed=0)


def boxed(low: float, high: float, shape: tuple[int, ...], dtype: Any = np.uint8) -> Film:
    film = Film()
    film.observation_space = Box(low, high, shape, dtype)
    return film


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (boxed(0, 255, (4, 84, 84)), "stack afterwards"),
        (boxed(0, 255, (84, 84, 4)), "stack afterwards"),
        (boxed(0, 255, (4, 84, 84, 3)), "stack afterwards"),
        (boxed(0, 255, (3, 84, 84)), "channels come first"),
        (boxed(0, 255, (6, 84, 3)), "shorter than 8 px"),
        (boxed(-1, 1, (84, 84, 3), np.float32), "which number is white"),
        (boxed(0, np.inf, (84, 84, 3), np.float32), "which number is white"),
        (boxed(0, 1, (4,), np.float32), "AddRenderObservation"),
    ],
)
def test_what_is_no_picture_is_refused(env: Film, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        FoveateObservation(env)


def test_stacking_comes_after_the_eye() -> None:
    env = FrameStackObservation(FoveateObservation(Film(length=9), retina="disc"), 3)
    env.reset(seed=0)
    observation = env.step(look(0.5, 0))[0]
    assert observation["glimpse"].shape == (3, *SIZE, 3)
    np.testing.assert_allclose(observation["fixation"], [[0, 0], [0, 0], [0.5, 0]])


def test_a_frame_of_another_shape_than_promised_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="as its space says"):
        FoveateObservation(boxed(0, 255, (84, 84, 3))).reset(seed=0)


def test_dict_observations() -> None:
    env = FoveateObservation(Film(extra=True), retina="disc", keep=("place",))
    observation, info = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert observation["place"] == info["place"]
    assert set(FoveateObservation(Film(extra=True)).reset(seed=0)[0]) == {"glimpse", "acuity", "fixation"}
    two = Film()
    two.observation_space = Dict({"left": Film().observation_space, "right": Film().observation_space})
    with pytest.raises(InvalidValueError, match="left, right"):
        FoveateObservation(two)
    assert FoveateObservation(two, key="right").foveation.pixels.key == "right"
    none = Film()
    none.observation_space = Dict({"speed": Box(0, 1, (1,))})
    with pytest.raises(InvalidValueError, match="AddRenderObservation"):
        FoveateObservation(none)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"key": "vue"}, UnknownNameError, "view"),
        ({"keep": ("view",)}, InvalidValueError, "only the eye may see"),
        ({"keep": ("pace",)}, UnknownNameError, "place"),
        ({"keep": "place"}, InvalidTypeError, "tuple"),
        ({"gaze": "polar"}, InvalidValueError, "absolute, relative"),
        ({"retina": "dics"}, UnknownNameError, "Did you mean 'disc'"),
        ({"retina": "disc", "patch": True}, InvalidValueError, "has no patch"),
        ({"half_life_ms": 0}, InvalidValueError, "half_life_ms"),
        ({"px_per_deg": -1.0}, InvalidValueError, "px_per_deg"),
        ({"step_ms": np.nan, "belief": True}, InvalidValueError, "step_ms"),
        ({"saccades": 3}, InvalidTypeError, "Saccades"),
        ({"grid": (0, 3)}, InvalidValueError, "grid"),
        ({"render_height_px": 2}, InvalidValueError, "render_height_px"),
        ({"zoom": True}, TypeError, "zoom"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        FoveateObservation(Film(extra=True), **options)


def test_each_wrapper_says_which_one_to_use() -> None:
    with pytest.raises(InvalidTypeError, match="FoveateVectorObservation"):
        FoveateObservation(SyncVectorEnv([Film]))
    with pytest.raises(InvalidTypeError, match="FoveateObservation"):
        FoveateVectorObservation(Film())


# Actions


FLAT = [([0.5, 2.5], [0.5, 2.5]), ([1], 3), ([1, 3], [1, 3]), ([1, 0, 1], [1, 0, 1])]


@pytest.mark.parametrize(("motor", "flat", "own"), [(m, *f) for m, f in zip(MOTORS, FLAT, strict=True)])
def test_flat_actions_do_what_dicts_do(motor: gym.Space[Any], flat: list[Any], own: Any) -> None:
    one, two = Film(motor), Film(motor)
    named = FoveateObservation(one, retina="disc")
    array = FoveateObservation(two, retina="disc", flat=True, grid=(4, 4))
    named.reset(seed=0)
    array.reset(seed=0)
    gaze: list[Any] = [0.25, -0.75] if isinstance(motor, Box) else [2]  # cell 2 of 4 x 4: first row, third column
    dtype = np.float32 if isinstance(motor, Box) else np.int64
    action = own if isinstance(motor, Discrete) else np.array(own, motor.dtype)
    same(named.step(look(0.25, -0.75, action))[0], array.step(np.array(flat + gaze, dtype))[0])
    np.testing.assert_array_equal(one.actions, two.actions)


def test_cells_of_an_odd_grid_hold_still_in_the_middle() -> None:
    env = FoveateObservation(Film(length=9), retina="disc", gaze="relative", flat=True, grid=(3, 5))
    assert env.action_space == MultiDiscrete([3, 15])
    env.reset(seed=0)
    env.step(np.array([0, 9]))  # second row, last column
    observation = env.step(np.array([0, 7]))[0]
    np.testing.assert_allclose(observation["fixation"], [0.8, 0], atol=1e-6)


def test_motor_actions_that_cannot_be_flat() -> None:
    motor = Dict({"legs": Discrete(2)})
    with pytest.raises(InvalidValueError, match="flat=False"):
        FoveateObservation(Film(motor), flat=True)
    with pytest.raises(InvalidValueError, match="flat=False"):
        FoveateObservation(Film(Box(0, 9, (2,), np.int32)), flat=True)
    env = FoveateObservation(Film(motor))
    env.reset(seed=0)
    env.step(look(0, 0, {"legs": 1}))


@pytest.mark.parametrize(
    ("flat", "motor", "action", "error", "message"),
    [
        (False, 1, {"motor": 2, "gaze": np.array([np.nan, 0])}, InvalidValueError, r"gaze: .*\[-1, 1\]"),
        (False, 1, {"motor": 2, "gaze": np.array([1.01, 0])}, InvalidValueError, r"gaze: .*\[-1, 1\]"),
        (False, 1, {"motor": 2, "gaze": np.zeros(3)}, InvalidValueError, "shape"),
        (False, 1, {"motor": 2}, InvalidTypeError, "'motor' and 'gaze'"),
        (False, 1, np.zeros(3), InvalidTypeError, "'motor' and 'gaze'"),
        (True, 0, [0, 0, 0, np.inf], InvalidValueError, "finite"),
        (True, 0, [np.nan, 0, 0, 0], InvalidValueError, "finite"),
        (True, 0, [0, 0, 0, -1.5], InvalidValueError, "gaze"),
        (True, 0, [0, 0, 0], InvalidValueError, r"shape \(4,\)"),
        (True, 0, ["left", 0, 0, 0], InvalidTypeError, "numbers"),
        (True, 1, [0, 25], InvalidValueError, r"0 to \[2, 24\]"),
        (True, 1, [-1, 0], InvalidValueError, "from 0"),
        (True, 1, [0.0, 1.0], InvalidTypeError, "whole numbers"),
    ],
)
def test_bad_actions_are_refused_before_the_env_moves(
    flat: bool, motor: int, action: Any, error: type[Exception], message: str
) -> None:
    film = Film(MOTORS[motor])
    env = FoveateObservation(film, retina="disc", flat=flat)
    env.reset(seed=0)
    with pytest.raises(error, match=message):
        env.step(action)
    assert film.actions == []


def test_step_before_reset_is_refused() -> None:
    for env, action in (
        (FoveateObservation(Film()), look(0, 0)),
        (FoveateVectorObservation(SyncVectorEnv([Film])), {"motor": np.array([2]), "gaze": np.zeros((1, 2))}),
    ):
        with pytest.raises(gym.error.ResetNeeded):
            env.step(action)


# Lanes


def lanes_of(mode: AutoresetMode, count: int = 3, **options: Any) -> FoveateVectorObservation:
    makers: list[Callable[[], gym.Env[Any, Any]]] = [lambda: Film(extra=True)] * count
    return FoveateVectorObservation(SyncVectorEnv(makers, autoreset_mode=mode), **options)


EYE: dict[str, Any] = {"belief": True, "half_life_ms": 30, "saccades": Saccades(scatter=0.1), "keep": ("place",)}


@pytest.mark.parametrize("retina", ["patches", "disc"])
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_lane_i_equals_a_single_env(mode: AutoresetMode, retina: str) -> None:
    envs = lanes_of(mode, retina=retina, **EYE)
    singles = [FoveateObservation(Film(extra=True), retina=retina, **EYE) for _ in range(3)]
    gazes = np.random.default_rng(1).uniform(-1, 1, (12, 3, 2)).astype(np.float32)
    batch, info = envs.reset(seed=7)
    expected = [single.reset(seed=7 + i) for i, single in enumerate(singles)]
    ended, finals = np.zeros(3, bool), 0
    for t in range(len(gazes) + 1):
        assert envs.observation_space.contains(batch)
        for lane, (seen, single_info) in enumerate(expected):
            same(seen, {key: value[lane] for key, value in batch.items()})
            for key in ("fixation_px", "target_px", "amplitude_deg", "duration_ms", "place"):
                np.testing.assert_array_equal(info[key][lane], single_info[key], err_msg=key)
        if t == len(gazes):
            break
        if mode == AutoresetMode.DISABLED and ended.any():
            batch, info = envs.reset(options={"reset_mask": ended})
            for lane in np.flatnonzero(ended):
                expected[lane] = singles[lane].reset()
                same(expected[lane][0], {key: value[lane] for key, value in batch.items()})
            np.testing.assert_array_equal(info["_fixation_px"], ended)
        before = ended
        batch, _, ended, _, info = envs.step({"motor": np.full(3, 2), "gaze": gazes[t]})
        for lane, single in enumerate(singles):
            if mode == AutoresetMode.NEXT_STEP and before[lane]:
                expected[lane] = single.reset()
                continue
            seen, _, over, _, single_info = single.step(look(*gazes[t, lane]))
            assert over == ended[lane]
            expected[lane] = seen, single_info
            if mode == AutoresetMode.SAME_STEP and over:
                finals += 1
                same(seen, info["final_obs"][lane])
                np.testing.assert_array_equal(info["final_info"]["fixation_px"][lane], single_info["fixation_px"])
                expected[lane] = single.reset()
    assert (finals > 2) == (mode == AutoresetMode.SAME_STEP)


def test_lanes_without_a_seed_differ_and_a_list_of_seeds_is_taken() -> None:
    envs = lanes_of(AutoresetMode.NEXT_STEP, retina="patches")
    envs.reset()
    assert len(set(envs.foveation.eyes._seed.tolist())) == 3
    one, _ = envs.reset(seed=[4, 5, 6])
    two, _ = envs.reset(seed=4)
    same(one, two)
    with pytest.raises(InvalidValueError, match="no reset_mask"):
        lanes_of(AutoresetMode.DISABLED).reset(options={"reset_mask": np.array([True, False, True])})


def test_a_vector_env_that_does_not_say_when_lanes_begin_anew_is_refused() -> None:
    envs = SyncVectorEnv([Film])
    envs.metadata = {}
    with pytest.raises(InvalidValueError, match="autoreset_mode"):
        FoveateVectorObservation(envs)


# Pictures


def test_the_picture_marks_the_fixation_in_frame_and_glimpse() -> None:
    env = FoveateObservation(Film(render_mode="rgb_array"), retina="disc", render_height_px=400)
    with pytest.raises(gym.error.ResetNeeded):
        env.render()
    env.reset(seed=0)
    env.step(look(0.5, 0.5))
    picture = env.render()
    assert picture.shape[0] == 400
    right = picture.shape[1] - 560
    for x in (420, right + 420):  # 560 px wide, the eye at three quarters
        np.testing.assert_array_equal(picture[300, x], (255, 181, 71))
    assert Film(render_mode="rgb_array").render_mode == env.render_mode
    assert FoveateObservation(Film()).render_mode is None
