"""Errors on data that a run holds out, as functions of parameters: what a task follows its training by."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from mlipjax.data.properties import targets
from mlipjax.potential import Potential, property_values
from mlipjax.train.batches import LabelledBatches, predict, predict_property
from mlipjax.train.metrics import error_summary
from mlipjax.train.objectives import Denoising
from mlipjax.typing import Key, Params

Errors = Callable[[Params], dict[str, float]]


def force_field_errors(potential: Potential, batches: LabelledBatches) -> Errors:
    """Return ``params -> errors`` on labelled structures, those that have labels."""
    dataset = batches.dataset.subset(batches.planned)

    def errors(params: Params) -> dict[str, float]:
        summary = error_summary(dataset, predict(potential, params, batches))
        return {name: value for name, value in summary.items() if value is not None}

    return errors


def property_errors(potential: Potential, batches: LabelledBatches, name: str) -> Errors:
    """Return ``params -> {"mae", "rmse"}`` of a property, in its unit."""
    values = targets(batches.dataset, name)

    def errors(params: Params) -> dict[str, float]:
        error = predict_property(potential, params, batches, name) - values
        return {"mae": float(np.abs(error).mean()), "rmse": math.sqrt(float((error**2).mean()))}

    return errors


def denoising_errors(objective: Denoising, batches: LabelledBatches, key: Key) -> Errors:
    """Return ``params -> {"mse", "mse_of_zero"}`` for displacements that ``key`` fixes.

    The second is the error of predicting no displacement: a network has learned something when it is below.
    """

    def errors(params: Params) -> dict[str, float]:
        squares, zero, count = 0.0, 0.0, 0
        for number, plan in enumerate(batches.plans):
            (batch,) = objective.draw(batches, [plan], key, number)
            noise, mask = batch.labels.properties[objective.head.name], np.asarray(batch.graph.atom_mask)
            found = property_values(objective.potential, params, batch.graph)[objective.head.name]
            squares += float(np.sum((np.asarray(found, np.float64) - noise)[mask] ** 2))
            zero += float(np.sum(noise[mask].astype(np.float64) ** 2))
            count += 3 * int(mask.sum())
        return {"mse": squares / count, "mse_of_zero": zero / count}

    return errors
