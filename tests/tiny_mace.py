"""MACEs small enough for tests, with every part that the published ones have."""

import dataclasses

from mlipjax.models import MACEConfig

TINY = MACEConfig(
    species=(1, 6, 8),
    cutoff=3.5,
    hidden_irreps="4x0e + 4x1o",
    lmax=1,
    interactions=("density", "residual"),
    correlation=(2, 3),
    radial_hidden=(8,),
    distance_transform="agnesi",
    transform_constants=(1.0805, 0.9183, 4.5791),
    zbl=True,
    avg_n_neighbors=3.0,
    readout_hidden=4,
)

TINY_NONLINEAR = dataclasses.replace(
    TINY,
    interactions=("nonlinear", "nonlinear"),
    correlation=(2, 2),
    edge_irreps="3x0e + 2x1o",
    heads=("pbe", "scan"),
)
