"""What foveasim asks of its own speed: bounds on rows of ``foveasim bench``, most of them ratios within one run."""

from __future__ import annotations

from foveasim.bench_table import Goal

__all__ = ["GOALS"]

_COPY, _AP = "floor/copy/96x96", "peer/ap_gym"
_FOCUSMIM = {"foveate": (35, 45), "random_patches": (10, 12), "periphery": (10, 14)}
"""How many times as quick as the published pipeline, with crops and without."""


def _goals() -> tuple[Goal, ...]:
    made = []
    single = {"pyramid": (20, 20, 2_000), "disc": (10, 45, 8_000)}
    for retina, (copies, peer, large) in single.items():
        env = f"env/single/{retina}/96x96"
        made += [
            Goal(f"goal/single {retina}, in copies of its glimpse", _COPY, env, copies, "copies"),
            Goal(f"goal/single {retina} to ap_gym's, sensor 12x12", env, f"{_AP}/single/12x12", peer, "x"),
            Goal(f"goal/single {retina} 512x512", f"env/single/{retina}/512x512", "", large, "steps/s"),
        ]
    vector = {"pyramid": (12, 140), "disc": (60, 600)}
    for retina, (small, whole) in vector.items():
        env = f"env/vector/{retina}/256"
        made += [
            Goal(f"goal/256 lanes {retina} to ap_gym's, sensor 12x12", env, f"{_AP}/vector/12x12", small, "x"),
            Goal(f"goal/256 lanes {retina} to ap_gym's, sensor 96x96", env, f"{_AP}/vector/96x96", whole, "x"),
            Goal(f"goal/256 lanes {retina} with belief to without", f"{env}/belief", env, 0.5, "x"),
        ]
    made += [
        Goal("goal/window, median time between frames", "window/real/interval/p50", "", 17.0, "ms"),
        Goal("goal/window, 99th percentile between frames", "window/real/interval/p99", "", 20.0, "ms"),
        Goal("goal/memory of 4,096 lanes and 100,000 scenes", "memory/4096", "", 4000.0, "MB"),
        Goal("goal/lean to paper network, predictions", "network/lean/predict/64", "network/paper/predict/64", 5, "x"),
        Goal("goal/lean to paper network, training", "network/lean/train", "network/paper/train", 8, "x"),
    ]
    for technique, (crops, whole) in _FOCUSMIM.items():
        for how, bound in (("crops", crops), ("whole", whole)):
            over, under = f"pipeline/{technique}/{how}", f"peer/focusmim/{technique}/{how}"
            made.append(Goal(f"goal/pipeline {technique}, {how}, to FocusMIM's", over, under, bound, "x"))
    over, under = "pipeline/foveate/prepared", "peer/focusmim/foveate/whole"
    return (*made, Goal("goal/pipeline foveate, prepared once, to FocusMIM's", over, under, 100, "x"))


GOALS = _goals()
"""Each is computed where its parts were measured in the run."""
