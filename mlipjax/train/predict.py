"""Predictions for whole data sets, in float64 and with isolated-atom energies, on the host."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from mlipjax.data import View
from mlipjax.devices import SHARE, WHOLE, of_share, over_devices, put, side_by_side
from mlipjax.files import scratch
from mlipjax.graph import BatchPlan, GraphBatch
from mlipjax.potential import Potential, Prediction, apply, property_values
from mlipjax.train.batches import LabelledBatches
from mlipjax.train.state import Batch
from mlipjax.typing import Params


class StructurePrediction(NamedTuple):
    """Prediction for one structure, float64.

    Attributes:
        energy: total energy in eV, isolated-atom energies included.
        forces: (n, 3) eV/Å.
        stress: (3, 3) eV/Å^3.
    """

    energy: float
    forces: np.ndarray
    stress: np.ndarray


def predict(
    potential: Potential,
    params: Params,
    batches: LabelledBatches,
    on_batch: Callable[[Prediction, Batch], None] | None = None,
) -> Sequence[StructurePrediction]:
    """Predict every structure of a data set (or the planned ones of a part), in the data set's order.

    Many predictions are kept in a temporary file (``files.scratch``), not in memory.

    Args:
        potential: the network; isolated-atom energies are those of ``batches.potential``.
        params: parameters, in the dtype of ``batches``.
        batches: the data set.
        on_batch: called with the prediction and labels of every batch, still on the device and padded.
    """
    planned = np.array(batches.planned)
    starts = np.concatenate([[0], np.cumsum(batches.tables.n_atoms[planned])])
    energies, stresses, all_forces = scratch((len(planned),)), scratch((len(planned), 3, 3)), scratch((starts[-1], 3))
    for plan, batch, prediction in _predictions(potential, params, batches):
        if on_batch is not None:
            on_batch(prediction, batch)
        energy, forces, stress = jax.device_get((prediction.energy, prediction.forces, prediction.stress))
        start = 0
        for row, (index, place) in enumerate(zip(plan.indices, np.searchsorted(planned, plan.indices), strict=True)):
            numbers = np.asarray(batches.dataset.systems[index].atomic_numbers)
            stop = start + len(numbers)
            energies[place] = float(energy[row]) + batches.potential.reference_energy(numbers, batches.head)
            all_forces[starts[place] : starts[place + 1]] = forces[start:stop]
            stresses[place] = stress[row]
            start = stop

    def result(place: int) -> StructurePrediction:
        part = slice(starts[place], starts[place + 1])
        return StructurePrediction(float(energies[place]), all_forces[part], stresses[place])

    return View(result, len(planned))


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


def _predictions(
    potential: Potential, params: Params, batches: LabelledBatches
) -> Iterator[tuple[BatchPlan, Batch, Prediction]]:
    params = put(params, batches.mesh, WHOLE)
    for plans in map(batches.shares, batches.plans):
        parts = [batches.batch(plan) for plan in plans]
        found = apply_each(potential, params, [part.graph for part in parts], batches.mesh)
        yield from zip(plans, parts, found, strict=True)


def predict_property(potential: Potential, params: Params, batches: LabelledBatches, name: str) -> np.ndarray:
    """Predict a scalar property of every structure of a data set, in its order: (n,) float64.

    Args:
        potential: with a head for the property.
        params: its parameters.
        batches: structures.
        name: of the head.
    """
    values = np.zeros(len(batches.dataset))
    for plan in batches.plans:
        found = property_values(potential, params, batches.batch(plan).graph)[name]
        values[list(plan.indices)] = np.asarray(found, np.float64)[: len(plan.indices)]
    return values
