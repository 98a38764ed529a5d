"""Predictions of several batches at once, where there are several devices."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Sequence

import jax
from jax.sharding import Mesh

from mlipjax.devices import SHARE, WHOLE, get, of_share, over_devices, side_by_side
from mlipjax.graph import GraphBatch
from mlipjax.potential import Potential, Prediction, apply
from mlipjax.typing import Params


def apply_each(
    potential: Potential, params: Params, graphs: Sequence[GraphBatch], mesh: Mesh | None, *, features: bool = False
) -> list[Prediction]:
    """``apply`` to several batches, side by side on the devices of a mesh.

    Args:
        potential: to ask.
        params: its parameters, on all devices of the mesh.
        graphs: batches; with a mesh all of one shape, and at most as many as it has devices.
        mesh: of devices.
        features: bring them along from several devices; they are as large as all the rest together many times over.
    """
    if mesh is None:
        return [apply(potential, params, graph) for graph in graphs]
    found = get(_apply_shares(potential, mesh, features, params, side_by_side(graphs, mesh)))
    return [jax.tree.map(operator.itemgetter(place), found) for place in range(len(graphs))]


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _apply_shares(potential: Potential, mesh: Mesh, features: bool, params: Params, graphs: GraphBatch) -> Prediction:
    def one(params: Params, graph: GraphBatch) -> Prediction:
        found = potential.apply(params, graph)
        return found if features else dataclasses.replace(found, features=found.features[:, :0])

    return over_devices(of_share(one), mesh, (WHOLE, SHARE), SHARE)(params, graphs)
