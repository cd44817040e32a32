"""How alike scanpaths are, and how well maps predict where people look: every metric under one name.

``import foveasim.metrics as metrics`` and see docs/metrics.md for which one to use, what each reaches for people, and a
worked example. Nothing here needs a network, and nothing is imported but NumPy and torch until a metric is called.
"""

from foveasim.metrics.maps import (
    ConditionalScores,
    auc,
    conditional_scores,
    fixation_density,
    fixation_map,
    information_gain,
    nss,
    shuffled_auc,
)
from foveasim.metrics.multimatch import MULTIMATCH, multimatch, time_delay_embedding
from foveasim.metrics.pairs import Estimate, PairMean, bootstrap_mean, group_by_image, mean_pairs
from foveasim.metrics.saccades import (
    amplitude_counts,
    direction_counts,
    diversity_score,
    js_divergence,
    kl_divergence,
    saccades_px,
    scanmatch_kl,
)
from foveasim.metrics.scanmatch import nearest_distances, scanmatch, string_edit_distance
from foveasim.metrics.sequence_score import FixationClusters, fit_clusters, sequence_score

__all__ = [
    "MULTIMATCH",
    "ConditionalScores",
    "Estimate",
    "FixationClusters",
    "PairMean",
    "amplitude_counts",
    "auc",
    "bootstrap_mean",
    "conditional_scores",
    "direction_counts",
    "diversity_score",
    "fit_clusters",
    "fixation_density",
    "fixation_map",
    "group_by_image",
    "information_gain",
    "js_divergence",
    "kl_divergence",
    "mean_pairs",
    "multimatch",
    "nearest_distances",
    "nss",
    "saccades_px",
    "scanmatch",
    "scanmatch_kl",
    "sequence_score",
    "shuffled_auc",
    "string_edit_distance",
    "time_delay_embedding",
]
