"""The microscope: what fine-tuning does to the features of atoms and pairs."""

from mlipjax.representation.classes import coordination, environment_classes, usable
from mlipjax.representation.compare import Comparison, Members, collapse_marks, compare, old_data_residual
from mlipjax.representation.distance import (
    chart_residual,
    components,
    effective_rank,
    linear_cka,
    principal_angles,
    sliced_wasserstein,
    wasserstein_per_channel,
    within_classes,
)
from mlipjax.representation.edges import choose_pairs, edge_messages
from mlipjax.representation.features import (
    atom_elements,
    atom_structures,
    choose_structures,
    node_features,
)
from mlipjax.representation.resample import Estimate, estimate, half_samples
from mlipjax.representation.separation import Embedding, davies_bouldin, silhouette, standardise, tsne_maps

__all__ = [
    "Comparison",
    "Embedding",
    "Estimate",
    "Members",
    "atom_elements",
    "atom_structures",
    "chart_residual",
    "choose_pairs",
    "choose_structures",
    "collapse_marks",
    "compare",
    "components",
    "coordination",
    "davies_bouldin",
    "edge_messages",
    "effective_rank",
    "environment_classes",
    "estimate",
    "half_samples",
    "linear_cka",
    "node_features",
    "old_data_residual",
    "principal_angles",
    "silhouette",
    "sliced_wasserstein",
    "standardise",
    "tsne_maps",
    "usable",
    "wasserstein_per_channel",
    "within_classes",
]
