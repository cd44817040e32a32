"""Agents that do not look: closed forms, and lanes that do what single eyes do."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest

from foveasim.agents.builtin.scripted import Gaussian, Random, Raster, Spiral, Walk
from foveasim.agents.loading import make_agent
from foveasim.errors import AgentError, InvalidTypeError, InvalidValueError
from foveasim.geometry import DEFAULT_SHORT_SIDE_DEG


def seen(fixation, size=(96, 96)):
    fixation = np.asarray(fixation, np.float32)
    return {"fixation": fixation, "acuity": np.zeros((len(fixation), *size, 1), np.uint8)}


def start(agent, lanes):
    agent.reset(np.ones(lanes, bool))
    return agent


def follow(agent, lanes, steps, size=(96, 96), resets=()):
    """Return (steps, lanes, 2) of an eye that goes where the agent says."""
    start(agent, lanes)
    at, path = np.zeros((lanes, 2), np.float32), []
    for step in range(steps):
        for when, mask in resets:
            if when == step:
                agent.reset(np.array(mask))
                at = np.where(np.array(mask)[:, None], 0, at).astype(np.float32)
        at = agent.act(seen(at, size))
        path.append(at)
    return np.stack(path)


@pytest.mark.parametrize("name", ["centre", "random", "gaussian", "raster", "spiral", "walk"])
def test_a_lane_does_what_a_single_eye_with_its_seed_does(name):
    resets = [(3, [False, True, False]), (5, [True, True, False])]
    batch = follow(make_agent(name, seed=20), 3, 8, resets=resets)
    for lane in range(3):
        mine = [(step, [mask[lane]]) for step, mask in resets]
        alone = follow(make_agent(name, seed=20 + lane), 1, 8, resets=mine)
        np.testing.assert_array_equal(batch[:, lane], alone[:, 0])


@pytest.mark.parametrize("name", ["random", "gaussian", "walk"])
def test_noise_differs_between_lanes_steps_episodes_and_seeds(name):
    agent = make_agent(name, seed=1)
    first, second = follow(agent, 3, 4), follow(agent, 3, 4)
    other = follow(make_agent(name, seed=10), 3, 4)
    drawn = np.concatenate((first, second, other)).reshape(-1, 2)
    assert len(np.unique(drawn, axis=0)) == len(drawn)


def test_random_is_uniform():
    drawn = start(Random(2), 20_000).act(seen(np.zeros((20_000, 2))))
    assert drawn.dtype == np.float32
    assert np.abs(drawn).max() <= 1
    np.testing.assert_allclose(drawn.mean(0), 0, atol=0.02)
    np.testing.assert_allclose(drawn.var(0), 1 / 3, rtol=0.03)
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 0.03


def test_gaussian_has_its_sd():
    drawn = start(Gaussian((0.1, 0.2), seed=2), 20_000).act(seen(np.zeros((20_000, 2))))
    np.testing.assert_allclose(drawn.std(0), (0.1, 0.2), rtol=0.03)
    np.testing.assert_allclose(drawn.mean(0), 0, atol=0.006)


def test_a_wide_gaussian_is_cut_off_at_the_edge():
    drawn = start(Gaussian(1.0), 20_000).act(seen(np.zeros((20_000, 2))))
    assert np.abs(drawn).max() <= 1
    # Variance of a normal truncated at ±1 sd: 1 - 2 φ(1) / (2 Φ(1) - 1).
    inside = math.erf(1 / math.sqrt(2))
    np.testing.assert_allclose(drawn.var(0), 1 - 2 * math.exp(-0.5) / math.sqrt(2 * math.pi) / inside, rtol=0.03)
    flat = start(Gaussian(100), 20_000).act(seen(np.zeros((20_000, 2))))
    np.testing.assert_allclose(flat.var(0), 1 / 3, rtol=0.03)


def test_raster_reads_every_cell_once():
    path = follow(Raster(rows=2, cols=3), 2, 7)
    expected = [[x, y] for y in (-0.5, 0.5) for x in (-2 / 3, 0, 2 / 3)]
    np.testing.assert_allclose(path[:6, 0], expected, atol=1e-6)
    np.testing.assert_array_equal(path[6], path[0])


def test_spiral_winds_outward():
    agent = start(Spiral(pitch=0.2), 1)
    path = np.stack([agent.act(seen([[0.5, 0.5]]))[0] for _ in agent.places]).astype(float)
    radius = np.hypot(*path.T)
    assert radius[0] == 0
    assert (np.diff(radius) > 0).all()
    assert radius[-1] > 1.2  # the corners too
    inner = path[radius < 0.9]
    steps = np.hypot(*np.diff(inner[5:], axis=0).T)
    np.testing.assert_allclose(steps, 0.2, rtol=0.05)
    # Archimedes: the radius grows by one pitch a turn.
    angle = np.unwrap(np.arctan2(*inner[1:, ::-1].T))
    np.testing.assert_allclose(np.polyfit(angle, radius[1 : len(inner)], 1)[0], 0.2 / (2 * math.pi), rtol=1e-3)
    # Every place of the inner disc lies within one pitch of a fixation.
    grid = np.stack(np.meshgrid(*[np.linspace(-0.6, 0.6, 25)] * 2), -1).reshape(-1, 2)
    assert np.hypot(*(grid[:, None] - path).transpose(2, 0, 1)).min(1).max() < 0.2


def test_tours_do_not_begin_where_the_eye_is():
    agent = start(Spiral(pitch=0.2), 2)
    aside = seen([[0, 0], [0.5, 0]])
    first, then = agent.act(aside), agent.act(aside)
    np.testing.assert_array_equal(first, agent.places[[1, 0]])
    np.testing.assert_array_equal(then, agent.places[[2, 1]])
    agent.reset(np.array([False, True]))
    np.testing.assert_array_equal(agent.act(seen([[0, 0], [0, 0]])), agent.places[[3, 1]])


def test_walk_draws_gamma_amplitudes_from_the_centre():
    lanes = 20_000  # a scene so wide that hardly any saccade meets its edge
    landed = start(Walk(amplitude_deg=4.6, short_side_deg=100), lanes).act(seen(np.zeros((lanes, 2))))
    amplitude = np.hypot(*landed.T) * 50
    np.testing.assert_allclose(amplitude.mean(), 4.6, rtol=0.03)
    np.testing.assert_allclose(amplitude.std(), 4.6 / math.sqrt(1.53), rtol=0.03)


def test_walk_prefers_horizontal_to_vertical_to_oblique():
    lanes = 40_000
    landed = start(Walk(short_side_deg=100), lanes).act(seen(np.zeros((lanes, 2))))
    share = np.histogram((np.degrees(np.arctan2(*landed.T[::-1])) + 22.5) % 360, 8, (0, 360))[0] / lanes
    assert min(share[0], share[4]) > max(share[2], share[6]) > 1.1 * max(share[1::2])
    np.testing.assert_allclose(share[:4], share[4:], atol=0.01)


def test_walk_goes_on_or_back_rather_than_aside():
    agent = start(Walk(short_side_deg=1000 / 3), 40_000)
    first = agent.act(seen(np.zeros((40_000, 2))))
    # The second saccade is asked for at the centre, so that only the turn differs from the first.
    second = agent.act(seen(np.zeros((40_000, 2))))
    turn = np.arctan2(*second.T[::-1]) - np.arctan2(*first.T[::-1])
    share = np.histogram((np.degrees(turn) + 45) % 360, 4, (0, 360))[0] / 40_000
    assert share[0] > share[2] > 1.05 * max(share[1], share[3])


def test_walk_takes_longer_steps_in_a_scene_that_is_smaller_to_the_eye():
    # Small amplitudes at the centre, so that no edge matters: the same draws, scaled by the scene's visual angle.
    usual, near = (
        start(make_agent("walk", amplitude_deg=0.1, **given), 100).act(seen(np.zeros((100, 2))))
        for given in ({}, {"short_side_deg": DEFAULT_SHORT_SIDE_DEG / 2})
    )
    np.testing.assert_allclose(near, 2 * usual, rtol=1e-5)


def test_walk_comes_back_from_the_edge_and_is_reflected_there():
    corner = np.full((5_000, 2), 0.95)
    landed = start(Walk(), 5_000).act(seen(corner))
    assert np.abs(landed).max() <= 1
    assert landed.mean() < 0.7
    far = follow(Walk(amplitude_deg=180, short_side_deg=10), 50, 10)
    assert np.abs(far).max() <= 1


def test_walk_moves_by_degrees_in_a_wide_scene():
    lanes = 20_000
    landed = start(Walk(short_side_deg=100), lanes).act(seen(np.zeros((lanes, 2)), size=(50, 200)))
    square = start(Walk(short_side_deg=100), lanes).act(seen(np.zeros((lanes, 2))))
    np.testing.assert_allclose(landed * [4, 1], square, atol=1e-5)


# People on the 500 training images of OSIE: amplitudes at four percentiles, degrees, and the share of turns in 12 bins
# of 30 degrees, the first about straight on.
AT = [25, 50, 75, 95]
AMPLITUDE_DEG = [1.673, 4.445, 9.309, 16.879]
TURNS = [0.1211, 0.0890, 0.0663, 0.0649, 0.0688, 0.0819, 0.1426, 0.0805, 0.0669, 0.0645, 0.0671, 0.0864]


def movements(paths):
    """Return the amplitudes at the percentiles and the shares of turns, of paths in px of 600 x 800."""
    amplitudes, turns = [], []
    for path in paths:
        moves = np.diff(np.asarray(path), axis=0)
        moves = moves[np.hypot(*moves.T) > 0.2 * 24]
        amplitudes.append(np.hypot(*moves.T) / 24)
        turns.append(np.diff(np.arctan2(*moves.T[::-1])))
    turn = np.concatenate(turns)
    shares = np.histogram((np.degrees(turn) + 15) % 360, 12, (0, 360))[0] / len(turn)
    return np.percentile(np.concatenate(amplitudes), AT), shares


def test_walk_moves_as_people_do():
    walked = follow(Walk(short_side_deg=25), 2_000, 10, size=(60, 80)).transpose(1, 0, 2)
    amplitudes, turns = movements((walked + 1) * [400, 300])
    np.testing.assert_allclose(amplitudes, AMPLITUDE_DEG, rtol=0.25)
    assert np.abs(turns - TURNS).sum() < 0.1


def test_people_move_so(shared_data):
    train = set(json.loads((shared_data / "osie" / "splits.json").read_text())["train"])
    people: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with (shared_data / "osie" / "fixations.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["image"] in train:
                people.setdefault((row["image"], row["subject"]), []).append((float(row["x"]), float(row["y"])))
    amplitudes, turns = movements(people.values())
    np.testing.assert_allclose(amplitudes, AMPLITUDE_DEG, atol=1e-3)
    np.testing.assert_allclose(turns, TURNS, atol=1e-4)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: Gaussian(0), InvalidValueError, "sd must be a finite number"),
        (lambda: Gaussian((1, 2, 3)), InvalidTypeError, "a number or a pair"),
        (lambda: Raster(rows=0), InvalidValueError, "rows must be"),
        (lambda: Raster(cols=2.5), InvalidValueError, "cols must be a whole number"),
        (lambda: Spiral(0), InvalidValueError, "pitch must be"),
        (lambda: Walk(amplitude_deg=-1), InvalidValueError, "amplitude_deg must be"),
        (lambda: Random(seed=0.5), InvalidTypeError, "seed must be a whole number"),
    ],
)
def test_arguments_out_of_range(build, error, message):
    with pytest.raises(error, match=message):
        build()


@pytest.mark.parametrize("name", ["random", "gaussian", "raster", "spiral", "walk"])
def test_acting_before_a_reset(name):
    with pytest.raises(AgentError, match="before the first act"):
        make_agent(name).act(seen(np.zeros((2, 2))))
