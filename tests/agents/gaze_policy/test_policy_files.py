"""Policies as files and as agents: the same answers as stable-baselines3's model, at every size, without unpickling."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foveasim.agents.builtin.predictive import Uncertainty
from foveasim.agents.contract.check import check_agent
from foveasim.agents.contract.observations import make_synthetic_observations
from foveasim.agents.gaze_policy.features import FeatureConfig
from foveasim.agents.gaze_policy.network import Actor, ActorConfig
from foveasim.agents.gaze_policy.policy_agents import PolicyAgent
from foveasim.agents.gaze_policy.policy_files import Policy, fingerprint_weights, load_policy, save_policy
from foveasim.agents.gaze_policy.rewards import PredictionReward
from foveasim.agents.loading import agent_factory, make_agent
from foveasim.agents.mim.network import make_network
from foveasim.agents.mim.predictor import BeliefPredictor
from foveasim.agents.mim.weights_file import read_tensors, save_network, write_tensors
from foveasim.agents.rl.feature_env import FeatureObservation
from foveasim.agents.rl.sb3_model import actor_of, make_model
from foveasim.agents.rl.vec_env import GlimpseVecEnv
from foveasim.envs.vector import FoveaVectorEnv
from foveasim.errors import AgentError, InvalidValueError, WeightsError

FEATURE_CONFIG = FeatureConfig(cells=6)
CELLS = ActorConfig("cells", (6, 6), FEATURE_CONFIG.channels, 6, FEATURE_CONFIG.channel("gain"), 36, width=8)


@pytest.fixture
def network(tmp_path: Path) -> str:
    """The file of a small network."""
    torch.manual_seed(0)
    save_network(tmp_path / "small.safetensors", make_network("unet", widths=(8, 8, 8), blocks=(0, 0, 0)), {})
    return str(tmp_path / "small.safetensors")


def stirred(config: ActorConfig, seed: int = 1) -> Actor:
    """An actor none of whose weights is 0."""
    actor, draws = Actor(config), torch.Generator().manual_seed(seed)
    for value in actor.parameters():
        value.data.copy_(0.3 * torch.randn(value.shape, generator=draws))
    return actor.eval()


def observations(size: tuple[int, int] = (48, 48), steps: int = 3) -> list[dict[str, Any]]:
    return make_synthetic_observations(4, steps, size=size, needs=("belief",))


def run(agent: PolicyAgent, seen: list[dict[str, Any]]) -> np.ndarray:
    agent.reset(np.ones(4, np.bool_))
    return np.stack([agent.act(observation) for observation in seen])


@pytest.mark.parametrize(
    ("algorithm", "config", "options"),
    [
        ("ppo", CELLS, {}),
        ("maskable_ppo", replace(CELLS, least_gain=0.4), {}),
        ("ppo", replace(CELLS, kind="point", hidden=(16,)), {}),
        ("ppo", replace(CELLS, kind="flat", hidden=(16, 8), activation="tanh", outputs=2), {}),
        ("recurrent_ppo", replace(CELLS, kind="point", hidden=(8,), memory=12, outputs=2), {}),
        ("sac", replace(CELLS, kind="point", hidden=(16,), outputs=2, squash=True), {"buffer_size": 100}),
    ],
)
def test_an_agent_does_what_the_model_predicts(
    algorithm: str, config: ActorConfig, options: dict[str, Any], network: str, tmp_path: Path
) -> None:
    acts = "point" if config.outputs == 2 else "cell"
    base = FoveaVectorEnv(
        4, belief=True, privileged=True, size=(48, 48), budget=3, retina="disc", autoreset_mode="SameStep"
    )
    eyes = FeatureObservation(
        PredictionReward(base, BeliefPredictor(network)), FEATURE_CONFIG, acts, least_gain=config.least_gain
    )
    lanes = GlimpseVecEnv(eyes)
    with torch.random.fork_rng():
        if "ppo" in algorithm:
            options = {"n_steps": 4, "batch_size": 4, "n_epochs": 1, **options}
        model = make_model(algorithm, lanes, config, seed=0, device="cpu", options=options)
        draws = torch.Generator().manual_seed(3)
        for value in model.policy.parameters():
            value.data.copy_(0.3 * torch.randn(value.shape, generator=draws))
    policy = Policy(
        actor_of(model, config),
        FEATURE_CONFIG,
        network,
        fingerprint_weights(BeliefPredictor(network).predictor.network),
    )
    save_policy(tmp_path / "policy.safetensors", policy)
    agent = make_agent(tmp_path / "policy.safetensors")
    agent.reset(np.ones(4, np.bool_))

    raw, _ = base.reset(seed=0)
    seen, _ = eyes.reset(seed=0)
    state: Any = None
    starts = np.ones(4, np.bool_)
    for _ in range(5):
        extra = {"action_masks": eyes.action_masks()} if algorithm == "maskable_ppo" else {}
        action, state = model.predict(seen, state=state, episode_start=starts, deterministic=True, **extra)  # type: ignore[arg-type]
        np.testing.assert_allclose(agent.act(raw), eyes.places(action), atol=1e-5)
        seen, _, starts, _, _ = eyes.step(action)
        raw = base.observe()
        if starts.any():
            agent.reset(starts)


def test_an_untrained_policy_of_cells_looks_where_uncertainty_does() -> None:
    ahead = BeliefPredictor("unet")
    policy = Policy(Actor(replace(CELLS, grid=(12, 12), outputs=144)), FeatureConfig(), "unet")
    agent, other = PolicyAgent(policy, predictor=ahead.predictor), Uncertainty(ahead.predictor.network)
    for size in ((96, 96), (64, 101)):
        seen = observations(size)
        other.reset(np.ones(4, np.bool_))
        theirs = np.stack([other.act(observation) for observation in seen])
        assert (np.abs(run(agent, seen) - theirs).max(2) < 1e-6).mean() > 0.8  # the others are ties


@pytest.mark.parametrize("size", [(48, 48), (96, 64), (100, 171), (240, 320)])
@pytest.mark.parametrize("kind", ["cells", "point", "flat"])
def test_a_policy_works_on_scenes_of_any_size(kind: Any, size: tuple[int, int], network: str) -> None:
    config = replace(CELLS, kind=kind, outputs=36 if kind != "point" else 2, hidden=() if kind == "cells" else (8,))
    found = run(PolicyAgent(Policy(stirred(config), FEATURE_CONFIG, network)), observations(size, 2))
    assert found.shape == (2, 4, 2)
    assert np.abs(found).max() <= 1


@pytest.mark.parametrize("memory", [0, 8])
def test_a_policy_keeps_the_contract_of_agents(memory: int, network: str) -> None:
    config = CELLS if not memory else replace(CELLS, kind="point", outputs=2, hidden=(8,), memory=memory)
    policy = Policy(stirred(config), FEATURE_CONFIG, network)
    results = check_agent(lambda seed: PolicyAgent(policy, seed=seed), size=(48, 48), limit_ms=1000)
    assert {result.level for result in results} <= {"pass", "note"}, results


def test_samples_are_drawn_by_softmax_and_repeat_by_seed(network: str) -> None:
    seen = observations(steps=1) * 40

    def drawn(scale: float, seed: int, deterministic: bool = False) -> np.ndarray:
        actor = stirred(replace(CELLS, prior=0.0))
        actor.trunk.net.head.weight.data *= scale  # type: ignore[union-attr]
        return run(PolicyAgent(Policy(actor, FEATURE_CONFIG, network), deterministic=deterministic, seed=seed), seen)

    even, sharp = drawn(0.0, 0), drawn(1e4, 0)
    np.testing.assert_array_equal(even, drawn(0.0, 0))
    assert (even != drawn(0.0, 9)).any()
    for lane in range(4):
        assert len(np.unique(even[:, lane], axis=0)) > 18  # of 36 cells, 40 even draws leave a third aside
    assert (np.abs(sharp - drawn(1e4, 0, deterministic=True)).max(2) < 1e-6).mean() > 0.8


def test_a_file_holds_all_of_a_policy(network: str, tmp_path: Path) -> None:
    policy = Policy(stirred(CELLS), FEATURE_CONFIG, network, "abc", {"steps": 7})
    path = tmp_path / "run" / "gaze.safetensors"
    save_policy(path, policy)
    found = load_policy(path)
    assert found.actor.config == CELLS
    assert found.features == FEATURE_CONFIG
    assert (found.network, found.fingerprint, found.card) == (network, "abc", {"steps": 7})
    for name, value in policy.actor.state_dict().items():
        torch.testing.assert_close(found.actor.state_dict()[name], value, rtol=0, atol=0)
    assert agent_factory(str(path))(seed=3, predictor="unet").name == "gaze"


def test_a_network_that_lies_beside_the_policy_is_found(network: str, tmp_path: Path) -> None:
    policy = Policy(stirred(CELLS), FEATURE_CONFIG, "elsewhere/small.safetensors")
    save_policy(tmp_path / "policy.safetensors", policy)
    assert load_policy(tmp_path / "policy.safetensors").network == network
    with pytest.raises(WeightsError, match="no weights file"):
        PolicyAgent(policy)


def test_other_weights_of_the_network_are_told(network: str) -> None:
    policy = Policy(stirred(CELLS), FEATURE_CONFIG, network, "0" * 16)
    with pytest.warns(UserWarning, match="other weights of the network"):
        PolicyAgent(policy)
    PolicyAgent(policy, predictor=network)  # chosen on purpose


def test_files_that_are_no_policy_are_refused(network: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no policy file.*There are small.safetensors"):
        make_agent(str(tmp_path / "policy.safetensors"))
    with pytest.raises(WeightsError, match="holds no gaze policy"):
        make_agent(network)
    path = tmp_path / "policy.safetensors"
    save_policy(path, Policy(stirred(CELLS), FEATURE_CONFIG, network))
    tensors, metadata = read_tensors(path)
    short = tmp_path / "short.safetensors"
    short.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(WeightsError, match="truncated"):
        load_policy(short)
    name = next(iter(tensors))
    for broken, message in (
        ({key: value for key, value in tensors.items() if key != name}, "missing tensors "),
        ({**tensors, name: tensors[name][..., None]}, "must be "),
        ({**tensors, name: torch.full_like(tensors[name], torch.nan)}, "not finite"),
    ):
        write_tensors(short, broken, metadata)
        with pytest.raises(WeightsError, match=message):
            load_policy(short)
    write_tensors(short, tensors, {**metadata, "actor": "{}"})
    with pytest.raises(WeightsError, match="damaged"):
        load_policy(short)


def test_what_does_not_belong_together_is_refused(network: str) -> None:
    with pytest.raises(InvalidValueError, match="takes 10"):
        Policy(Actor(CELLS), FeatureConfig(maps=("gain",)), network)
    with pytest.raises(InvalidValueError, match="prior goes by the map"):
        replace(CELLS, gain_channel=None)
    points = replace(CELLS, kind="point", outputs=2)
    with pytest.raises(AgentError, match="no cells to sample"):
        PolicyAgent(Policy(Actor(points), FEATURE_CONFIG, network), deterministic=False)
    diverged = stirred(CELLS)
    diverged.trunk.net.head.bias.data.fill_(torch.inf)  # type: ignore[union-attr]
    with pytest.raises(InvalidValueError, match="not finite"):
        save_policy("never.safetensors", Policy(diverged, FEATURE_CONFIG, network))
