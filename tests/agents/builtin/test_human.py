"""The person at the mouse."""

from __future__ import annotations

import numpy as np
import pytest

from foveasim.agents.builtin.human import Human
from foveasim.errors import InvalidValueError


def test_looks_where_one_points_once_and_else_stays():
    agent = Human()
    fixation = np.array([[0.1, 0.2], [-0.3, 0.4]], np.float32)
    agent.reset(np.ones(2, bool))
    np.testing.assert_array_equal(agent.act({"fixation": fixation}), fixation)
    agent.point(-1, -1)
    agent.point(0.5, -0.5)
    assert agent.act({"fixation": fixation}).tolist() == [[0.5, -0.5], [0.5, -0.5]]
    action = agent.act({"fixation": fixation})
    action[:] = 0  # the observation is not the action's memory
    assert fixation[0, 0] == np.float32(0.1)


def test_a_reset_forgets_the_point():
    agent = Human()
    agent.point(0.5, 0.5)
    agent.reset(np.ones(1, bool))
    assert agent.act({"fixation": np.zeros((1, 2), np.float32)}).tolist() == [[0, 0]]


@pytest.mark.parametrize("point", [(1.5, 0), (0, float("nan"))])
def test_points_outside_the_scene(point):
    with pytest.raises(InvalidValueError, match="_norm must be a finite number"):
        Human().point(*point)
