"""The three kinds of task: a property of a structure, energies and forces, and taking noise out of positions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlipjax.losses import Loss, LossTerms, LossWeights
from mlipjax.nn.readouts import PropertyHead
from mlipjax.potential import Potential, property_values
from mlipjax.train.batches import LabelledBatches
from mlipjax.train.metrics import error_summary
from mlipjax.train.multitask import Prefactors, Task
from mlipjax.train.multitask_batches import Epochs, NoisyBatch, PropertyBatch, PropertyStream
from mlipjax.train.predict import predict
from mlipjax.train.state import Batch
from mlipjax.typing import Array, Key, Params

_RESAMPLES = 1000


def property_task(
    potential: Potential,
    head: PropertyHead,
    stream: PropertyStream,
    key: Key,
    *,
    delta: float = 0.1,
    share: float = 1.0,
    evaluate: Callable[[Params], dict[str, float]] | None = None,
) -> Task:
    """Learn one number per structure.

    The loss is the mean over structures of ``sqrt(r² + δ²) - δ``, where ``r`` is the residual in standard deviations
    (for an extensive property: the residual per atom).

    Args:
        potential: with ``head`` among its properties.
        head: which property.
        stream: structures and values.
        key: of the order of structures.
        delta: δ, the size of residual that counts as small.
        share: see ``Task``.
        evaluate: errors on validation data.
    """
    epochs = Epochs(stream, key)

    def batches(number: int) -> list[PropertyBatch]:
        return [stream.batch(epochs.plan(number))]

    objective = _PropertyObjective(potential, head, delta)
    return Task(head.name, (head.group,), objective, batches, Prefactors.constant(1.0), share, evaluate)


@dataclasses.dataclass(frozen=True)
class _PropertyObjective:
    potential: Potential
    head: PropertyHead
    delta: float

    def __call__(self, params: Params, batch: PropertyBatch, weight: Array) -> tuple[Array, Mapping[str, Array]]:
        head = self.head
        found = self.potential.property_values(params, batch.graph)[head.name]
        scale = jnp.maximum(batch.graph.n_atoms, 1).astype(found.dtype) if head.kind == "extensive" else 1.0
        mask = batch.graph.graph_mask
        residual = jnp.where(mask, (found - batch.targets) / (head.std * scale), 0.0)
        count = jnp.maximum(jnp.sum(mask), 1)
        squared = residual**2
        term = jnp.sum(squared / (jnp.sqrt(squared + self.delta**2) + self.delta)) / count
        return weight * term, {"loss": term, "mae": head.std * jnp.sum(jnp.abs(residual)) / count}


def force_field_task(
    potential: Potential,
    labelled: LabelledBatches,
    loss: Loss,
    key: Key,
    *,
    prefactors: Prefactors | None = None,
    share: float = 1.0,
    evaluate: Callable[[Params], dict[str, float]] | None = None,
    name: str = "force_field",
) -> Task:
    """Learn energies, forces and stresses with the energy head ``labelled.head``.

    Args:
        potential: what is trained.
        labelled: structures and labels; the head's own isolated-atom energies are subtracted there.
        loss: of a batch.
        key: of the order of structures.
        prefactors: of energies, forces and stresses (``LossWeights``); constant by default.
        share, evaluate: see ``Task``.
        name: in logs.
    """
    prefactors = Prefactors.constant(LossWeights()) if prefactors is None else prefactors
    steps = _EpochsOfSteps(labelled, key)

    def batches(number: int) -> list[tuple[Batch, LossTerms]]:
        parts = [labelled.batch(plan) for plan in steps(number)]
        counts = [_counts(part) for part in parts]
        total = LossTerms(*(np.sum(values, dtype=labelled.dtype) for values in zip(*counts, strict=True)))
        return [(part, total) for part in parts]

    group = f"readout_{potential.heads[labelled.head]}"
    return Task(name, (group,), _ForceObjective(potential, loss), batches, prefactors, share, evaluate)


@dataclasses.dataclass(frozen=True)
class _ForceObjective:
    potential: Potential
    loss: Loss

    def __call__(self, params: Params, batch: tuple[Batch, LossTerms], weights: LossWeights) -> Any:
        part, counts = batch
        total, terms = self.loss(self.potential.apply(params, part.graph), part.labels, part.graph, weights, counts)
        return total, terms._asdict()


def denoising_task(
    potential: Potential,
    head: PropertyHead,
    stream: PropertyStream,
    key: Key,
    *,
    share: float = 1.0,
    evaluate: Callable[[Params], dict[str, float]] | None = None,
) -> Task:
    """Learn to say how the atoms of a structure were displaced: mean squared error over atoms and components.

    The displacements are in units of their standard deviation, so a network that predicts zero has an error near 1
    (Zaidi et al., ICLR 2023, arXiv 2206.00133). They are drawn anew in every step, from ``key`` and its number. Needs
    no labels; a mixture of this task alone is S3's self-supervised pretraining.

    Args:
        potential: with ``head`` among its properties.
        head: a vector.
        stream: structures, and the noise in Å.
        key: of the order of structures and of their displacements.
        share, evaluate: see ``Task``; ``denoising_errors`` makes the latter.

    Raises:
        ValueError: if the stream's noise is zero or the head is no vector.
    """
    if not stream.noise > 0.0 or head.kind != "vector":
        raise ValueError(f"denoising needs noise and a vector head, found {stream.noise} Å and {head.kind!r}.")
    epochs = Epochs(stream, key)

    def batches(number: int) -> list[NoisyBatch]:
        return [stream.noisy_batch(epochs.plan(number), jax.random.fold_in(key, number))]

    objective = _NoiseObjective(potential, head)
    return Task(head.name, (head.group,), objective, batches, Prefactors.constant(1.0), share, evaluate)


@dataclasses.dataclass(frozen=True)
class _NoiseObjective:
    potential: Potential
    head: PropertyHead

    def __call__(self, params: Params, batch: NoisyBatch, weight: Array) -> tuple[Array, Mapping[str, Array]]:
        found = self.potential.property_values(params, batch.graph)[self.head.name]
        count = 3 * jnp.maximum(jnp.sum(batch.graph.atom_mask), 1)
        term = jnp.sum(jnp.where(batch.graph.atom_mask[:, None], found - batch.noise, 0.0) ** 2) / count
        return weight * term, {"mse": term}


class _EpochsOfSteps:
    """Micro-batches of step ``number`` of labelled structures; keeps the order of the current epoch."""

    def __init__(self, labelled: LabelledBatches, key: Key) -> None:
        self.labelled, self.key = labelled, key
        self._epoch, self._steps = -1, []

    def __call__(self, number: int) -> Sequence[Any]:
        epoch, within = divmod(number, self.labelled.steps_per_epoch)
        if epoch != self._epoch:
            self._steps, self._epoch = self.labelled.epoch(self.key, epoch), epoch
        return self._steps[within]


def _counts(batch: Batch) -> LossTerms:
    """``losses.label_counts`` on the host, for arrays that are there: no program, no transfer."""
    labels, graph = batch.labels, batch.graph
    return LossTerms(
        np.sum(graph.graph_mask & (labels.energy_weight > 0)),  # pyright: ignore[reportArgumentType]
        np.sum(graph.atom_mask & (labels.forces_weight > 0)[graph.graph_index]),  # pyright: ignore[reportArgumentType]
        np.sum(graph.graph_mask & (labels.stress_weight > 0)),  # pyright: ignore[reportArgumentType]
    )


def predict_property(potential: Potential, params: Params, stream: PropertyStream, name: str) -> np.ndarray:
    """Predict a scalar property of every structure of a stream, in the data's order: (n,) float64."""
    values = np.zeros(len(stream.data))
    for plan in stream.plans:
        found = property_values(potential, params, stream.batch(plan).graph)[name]
        values[list(plan.indices)] = np.asarray(found, np.float64)[: len(plan.indices)]
    return values


def property_report(targets: np.ndarray, predictions: np.ndarray) -> dict[str, Any]:
    """Return mean error, MAE and RMSE in the property's unit, n, and 95 % bootstrap intervals over structures."""
    if targets.shape != predictions.shape or len(targets) == 0:
        raise ValueError(f"found {predictions.shape} predictions for {targets.shape} values.")
    errors = predictions - targets
    drawn = np.random.default_rng(0).integers(0, len(errors), (_RESAMPLES, len(errors)))
    moments = {"mean": errors, "mae": np.abs(errors), "rmse": errors**2}
    resampled = {name: values[drawn].mean(axis=1) for name, values in moments.items()}
    resampled["rmse"] = np.sqrt(resampled["rmse"])
    return {
        "n": len(errors),
        "mean": float(errors.mean()),
        "mae": float(np.abs(errors).mean()),
        "rmse": math.sqrt(float((errors**2).mean())),
        "confidence_95": {name: np.percentile(values, [2.5, 97.5]).tolist() for name, values in resampled.items()},
    }


def property_errors(potential: Potential, stream: PropertyStream, name: str) -> Callable[[Params], dict[str, float]]:
    """Return ``params -> {"mae", "rmse"}`` on a stream: what a property task's ``evaluate`` may be."""

    def evaluate(params: Params) -> dict[str, float]:
        error = predict_property(potential, params, stream, name) - stream.data.targets
        return {"mae": float(np.abs(error).mean()), "rmse": math.sqrt(float((error**2).mean()))}

    return evaluate


def denoising_errors(
    potential: Potential, stream: PropertyStream, name: str, key: Key
) -> Callable[[Params], dict[str, float]]:
    """Return ``params -> {"mse", "mse_of_zero"}`` on a stream with displacements that ``key`` fixes.

    The second is the error of predicting no displacement: a network has learned something when it is below.
    """

    def evaluate(params: Params) -> dict[str, float]:
        squares, zero, count = 0.0, 0.0, 0
        for number, plan in enumerate(stream.plans):
            batch = stream.noisy_batch(plan, jax.random.fold_in(key, number))
            found = np.asarray(property_values(potential, params, batch.graph)[name], np.float64)
            mask = np.asarray(batch.graph.atom_mask)
            squares += float(np.sum((found - batch.noise)[mask] ** 2))
            zero += float(np.sum(batch.noise[mask].astype(np.float64) ** 2))
            count += 3 * int(mask.sum())
        return {"mse": squares / count, "mse_of_zero": zero / count}

    return evaluate


def force_field_errors(potential: Potential, labelled: LabelledBatches) -> Callable[[Params], dict[str, float]]:
    """Return ``params -> errors`` on labelled structures, those that have labels."""

    def evaluate(params: Params) -> dict[str, float]:
        summary = error_summary(labelled.dataset, predict(potential, params, labelled))
        return {name: value for name, value in summary.items() if value is not None}

    return evaluate
