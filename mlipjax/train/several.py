"""Predictions of several batches at once, where there are several devices."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence

import jax
from jax.sharding import Mesh

from mlipjax.devices import SHARE, WHOLE, of_share, over_devices, side_by_side
from mlipjax.graph import GraphBatch
from mlipjax.potential import Potential, Prediction, apply
from mlipjax.typing import Params


def apply_each(
    potential: Potential, params: Params, graphs: Sequence[GraphBatch], mesh: Mesh | None
) -> list[Prediction]:
    """``apply`` to several batches, side by side on the devices of a mesh.

    Args:
        potential: to ask.
        params: its parameters, on all devices of the mesh.
        graphs: batches; with a mesh all of one shape, and at most as many as it has devices.
        mesh: of devices.
    """
    if mesh is None:
        return [apply(potential, params, graph) for graph in graphs]
    found = jax.device_get(_apply_shares(potential, mesh, params, side_by_side(graphs, mesh)))
    return [jax.tree.map(operator.itemgetter(place), found) for place in range(len(graphs))]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _apply_shares(potential: Potential, mesh: Mesh, params: Params, graphs: GraphBatch) -> Prediction:
    return over_devices(of_share(potential.apply), mesh, (WHOLE, SHARE), SHARE)(params, graphs)
