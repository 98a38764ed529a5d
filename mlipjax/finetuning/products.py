"""Hessian products of a fine-tune: a task beside that of energies and forces, held-out ones, and errors of both."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np

from mlipjax.data import Dataset, split_dataset
from mlipjax.data.products import PRODUCT
from mlipjax.potential import Model, Potential
from mlipjax.settings import FinetuneSettings
from mlipjax.train import LabelledBatches, Prefactors, Task
from mlipjax.train.batches import frames_per_step
from mlipjax.train.products import HessianProducts, ProductJudge, label_products, predict_products
from mlipjax.typing import Params

Source = Dataset | Model
"""Structures with products (``data.products``), or a teacher, whose first head labels the structures of the run."""
_ORDER = 0x4856


class ProductSets(NamedTuple):
    """Products of a fine-tune.

    Attributes:
        task: what is trained on.
        judge: of what is held out, beside validation structures; ``None`` if nothing is.
        reported: what errors are measured on: held out, or trained on.
        before: predictions on it before training.
        note: in words.
    """

    task: Task
    judge: ProductJudge | None
    reported: LabelledBatches
    before: list[np.ndarray]
    note: str


def make_products(
    source: Source,
    student: Model,
    train_data: Dataset,
    valid_data: Dataset | None,
    settings: FinetuneSettings,
    *,
    fresh: bool = False,
) -> ProductSets:
    """Label or divide structures, plan batches, and compare them with the model before training.

    Args:
        source: where products come from. Given ones are held out as ``valid_fraction`` says, if there is validation.
        student: the model that is trained.
        train_data, valid_data: structures of the run.
        settings: of the run.
        fresh: whether the student knows nothing yet.

    Raises:
        ValueError: for an unknown element, atoms that coincide, or products of the wrong sign.
    """
    train, valid, note = _datasets(source, train_data, valid_data, settings)
    penalty, weight = settings.hvp_term()
    objective = HessianProducts(student.potential, penalty)
    batches = _batches(student.potential, train, settings)
    judge = None
    if valid is not None:
        judge = ProductJudge(objective, _batches(student.potential, valid, settings), weight)
    order = jax.random.fold_in(jax.random.key(settings.seed), _ORDER)
    task = Task("products", objective, batches, order, prefactors=Prefactors.constant(weight))
    reported = batches if judge is None else judge.batches
    before = predict_products(student.potential, student.params, reported)
    if not fresh:
        _check_sign(reported.dataset, before)
    return ProductSets(task, judge, reported, before, note)


def _datasets(
    source: Source, train_data: Dataset, valid_data: Dataset | None, settings: FinetuneSettings
) -> tuple[Dataset, Dataset | None, str]:
    if isinstance(source, Dataset):
        train, valid, where = source, None, "as given"
        if valid_data is not None and settings.valid_fraction > 0.0 and len(source) > 1:
            parts = split_dataset(source, valid=settings.valid_fraction, seed=settings.seed)
            train, valid = parts.train, parts.valid
    else:
        # two streams of probes
        train, valid = (
            None if data is None else label_products(source, data.systems, seed=seed, **settings.batching())
            for data, seed in ((train_data, 2 * settings.seed), (valid_data, 2 * settings.seed + 1))
        )
        assert train is not None
        where = "of a teacher"
    held = "none" if valid is None else str(len(valid))
    return train, valid, f"{len(train)} train / {held} valid Hessian products {where}"


def _batches(potential: Potential, data: Dataset, settings: FinetuneSettings) -> LabelledBatches:
    size = settings.batch_size or frames_per_step(data)
    return LabelledBatches.create(potential, data, size, passes=settings.epochs, **settings.batching())


def _check_sign(dataset: Dataset, found: list[np.ndarray]) -> None:
    labels = np.concatenate([label.properties[PRODUCT] for label in dataset.labels])
    slope = np.sum(np.concatenate(found) * labels) / max(np.sum(labels**2), np.finfo(float).tiny)
    if slope < 0.0:
        raise ValueError(
            f"the model's Hessian products are {slope:.2g} times the labels (slope through the origin): their sign is "
            "that of forces; H v is minus the change of the forces along v."
        )


def products_after(sets: ProductSets, params: Params) -> list[np.ndarray]:
    """Predictions of trained parameters on what is reported."""
    objective = sets.task.objective
    assert isinstance(objective, HessianProducts)
    return predict_products(objective.potential, params, sets.reported)
