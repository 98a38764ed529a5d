"""Choice of the parameters of a run that are kept, by what is held out: losses of a force field, errors of tasks."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlipjax.data.properties import targets
from mlipjax.hosts import json_of_first
from mlipjax.losses import Loss, LossWeights
from mlipjax.potential import Potential, property_values
from mlipjax.train.batches import LabelledBatches, StructurePrediction, predict, predict_property
from mlipjax.train.metrics import error_summary
from mlipjax.train.objectives import Denoising, ForceField, total_counts
from mlipjax.train.state import TrainState
from mlipjax.train.tasks import Mixture
from mlipjax.typing import Array, Key, Params

Judge = Callable[[Params], dict[str, Any]]
"""An epoch's record of parameters. The lowest ``score`` is kept; where it is ``None``, the latest. A
``valid_loss`` beside it says how well they fit, whatever else is in the score."""


class NonFiniteError(RuntimeError):
    """Loss or gradient became NaN or infinite; the message says where, and which frames were saved."""


@dataclasses.dataclass(frozen=True, eq=False)
class LossJudge:
    """Losses and errors of a force field on validation structures, and on those that it knew before.

    Attributes:
        objective: potential and loss.
        weights: of the loss.
        valid: validation structures; ``None`` prefers the latest parameters to all earlier ones.
        anchor: structures on which the retained error is measured, if any.
        anchor_weight: what their loss counts beside that of the validation structures.
        products: loss and errors of Hessian products that are held out, added to those of ``valid``.
    """

    objective: ForceField
    weights: LossWeights
    valid: LabelledBatches | None
    anchor: LabelledBatches | None = None
    anchor_weight: float = 0.0
    products: Callable[[Params], tuple[float, dict[str, float]]] | None = None

    def __call__(self, params: Params) -> dict[str, Any]:
        """``valid_loss``, ``anchor_loss`` (``None`` without such structures), their errors and ``score``."""
        record: dict[str, Any] = {"valid_loss": None, "anchor_loss": None, "score": None}
        if self.anchor is not None:
            retained, found = validation_loss(self.objective, params, self.anchor, self.weights)
            errors = {f"anchor_{name}": value for name, value in error_summary(self.anchor.dataset, found).items()}
            record |= {"anchor_loss": retained, **errors}
        if self.valid is None:
            return record
        loss, predictions = validation_loss(self.objective, params, self.valid, self.weights)
        errors = error_summary(self.valid.dataset, predictions)
        if self.products is not None:
            more, of_products = self.products(params)
            loss, errors = loss + more, {**errors, **of_products}
        score = loss if self.anchor is None else loss + self.anchor_weight * record["anchor_loss"]
        return {**record, "valid_loss": loss, **errors, "score": score}


@dataclasses.dataclass(frozen=True, eq=False)
class TaskJudge:
    """Errors of every task apart, one of which is the score.

    Attributes:
        mixture: the tasks.
        score: task and error that decide.
    """

    mixture: Mixture
    score: tuple[str, str]

    def __call__(self, params: Params) -> dict[str, Any]:
        """``tasks``, each with its ``valid`` errors, and ``score``."""
        errors = {task.name: task.errors(params) for task in self.mixture.tasks if task.errors is not None}
        task, error = self.score
        tasks = {name: {"steps": 0, "train": {}, "valid": found} for name, found in errors.items()}
        return {"tasks": tasks, "score": errors[task][error]}


def consider(judge: Judge, state: TrainState, epoch: int) -> tuple[TrainState, dict[str, Any]]:
    """Judge the averaged parameters, and keep them if they are the best so far.

    The parameters before training are given up as soon as the validation loss falls below theirs, whatever else is in
    the score: they remember everything, and nothing could be learned against that. Afterwards the score decides.

    Raises:
        NonFiniteError: if the score is not finite.
    """
    # of several processes all must come to the same end
    judged = json_of_first(judge(state.ema_params))
    record = {"epoch": epoch, "step": int(state.step), "train_loss": None, **judged}
    score = record["score"]
    fit = record.get("valid_loss", score)
    if score is not None and not math.isfinite(score):
        anchor = f", the anchor loss {record['anchor_loss']}" if record.get("anchor_loss") is not None else ""
        raise NonFiniteError(f"epoch {epoch}: the validation loss is {fit:g}{anchor}. Lower the learning rate.")
    untrained = int(state.best_epoch) == 0
    if score is None or (fit if untrained else score) < float(state.best_metric):
        metric = fit if epoch == 0 else score
        state = dataclasses.replace(
            state,
            best_metric=state.best_metric if score is None else jnp.asarray(metric, state.best_metric.dtype),
            best_epoch=jnp.asarray(epoch, jnp.int32),
            best_params=state.ema_params,
        )
    return state, {**record, "best_epoch": int(state.best_epoch)}


def validation_loss(
    objective: ForceField, params: Params, batches: LabelledBatches, weights: LossWeights
) -> tuple[float, Sequence[StructurePrediction]]:
    """Return the weighted loss of a data set, as one batch would have it, and the predictions.

    Args:
        objective: potential and loss.
        params: of the potential.
        batches: labelled structures.
        weights: of energies, forces and stresses.
    """
    counts = total_counts(objective, (batches.batch(plan) for plan in batches.plans))
    losses: list[Array] = []

    def score(prediction, batch):
        losses.append(_loss(objective.loss, prediction, batch.labels, batch.graph, weights, counts))

    predictions = predict(objective.potential, params, batches, score)
    return sum(float(loss) for loss in losses), predictions


@functools.partial(jax.jit, static_argnums=0)
def _loss(loss: Loss, *arguments: Any) -> Array:
    return loss(*arguments)[0]


def explain_choice(best: dict[str, Any], records: Sequence[dict[str, Any]]) -> str:
    """Say in one sentence why an epoch was kept.

    Args:
        best: losses of the epoch kept, as in its record.
        records: of all epochs, from 1.
    """
    epochs = len(records)
    if best["valid_loss"] is None:
        return f"epoch {best['epoch']} of {epochs} is kept, the last one: there are no validation structures"
    name = f"epoch {best['epoch']} of {epochs}"
    if best["epoch"] == 0:
        name = f"epoch 0 of {epochs}, the model before training,"
    lowest = min([*records, best], key=lambda record: record["valid_loss"])
    if lowest["valid_loss"] < best["valid_loss"]:
        return (
            f"{name} was best by validation and anchor together (score {best['score']:.4g}); epoch {lowest['epoch']} "
            f"has the lower validation loss ({lowest['valid_loss']:.4g} against {best['valid_loss']:.4g}) but forgot "
            f"more (anchor loss {lowest['anchor_loss']:.4g} against {best['anchor_loss']:.4g}, score "
            f"{lowest['score']:.4g})"
        )
    if best["epoch"] == 0:
        return f"{name} was best: nothing was gained by training"
    return f"{name} was best"


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
