"""Training on Hessian-vector products, and errors of them.

The term is the mean over atoms of a penalty of ``r² = |(H v)_i - (H v)_i,ref|² / 3``, ``r`` in eV/Å^2 for probes of
unit mean square (``data.products``): projected Hessian learning (arXiv 2603.04523), with which phonons are fine-tuned
(arXiv 2601.07742). A product costs one forward-mode pass over that of forces, where a Hessian costs 3 n.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from mlipjax import tree
from mlipjax.data import Dataset
from mlipjax.data.products import PROBE, PRODUCT, random_probes, with_products
from mlipjax.hessian import hessian_product, hessian_products
from mlipjax.losses import Penalty
from mlipjax.potential import Model, Potential
from mlipjax.statistics import confidence_95, draw_rows
from mlipjax.system import System
from mlipjax.train.batches import LabelledBatches
from mlipjax.train.state import Batch
from mlipjax.typing import Array, Params

MAE, RELATIVE = "hvp_mae_eV_per_A2", "hvp_relative_error"


class ProductTerms(NamedTuple):
    """Mean penalty over atoms, and mean absolute error over components in eV/Å^2."""

    loss: Array
    mae: Array


@dataclasses.dataclass(frozen=True)
class HessianProducts:
    """Products of Hessians with the probes of a batch.

    Attributes:
        potential: to train.
        penalty: of squared residuals.
    """

    potential: Potential
    penalty: Penalty

    def counts(self, batch: Batch) -> Any:
        """Number of atoms."""
        return np.sum(batch.graph.atom_mask, dtype=batch.graph.positions.dtype)

    def __call__(self, params: Params, batch: Batch, weights: Array, counts: Array) -> tuple[Array, ProductTerms]:
        """Return the loss, ``weights`` times the mean penalty."""
        found = hessian_product(self.potential, params, batch.graph, batch.labels.properties[PROBE])
        error = jnp.where(batch.graph.atom_mask[:, None], found - batch.labels.properties[PRODUCT], 0.0)
        term = jnp.sum(self.penalty(jnp.mean(error**2, axis=1))) / counts
        return weights * term, ProductTerms(term, jnp.sum(jnp.abs(error)) / (3.0 * counts))


def predict_products(potential: Potential, params: Params, batches: LabelledBatches) -> list[np.ndarray]:
    """Predict the products (n, 3) in eV/Å^2 of every structure of a data set with its probe, in its order."""
    found: list[Any] = [None] * len(batches.dataset)
    for plan in batches.plans:
        batch = batches.batch(plan)
        products = np.asarray(
            hessian_products(potential, params, batch.graph, batch.labels.properties[PROBE]), np.float64
        )
        ends = np.cumsum(batches.tables.n_atoms[list(plan.indices)])
        for index, part in zip(plan.indices, np.split(products[: ends[-1]], ends[:-1]), strict=True):
            found[index] = part
    return found


def label_products(teacher: Model, systems: Sequence[System], *, seed: int, **batching: Any) -> Dataset:
    """Label structures with products of a teacher's Hessian and random probes.

    Args:
        teacher: whose first head answers.
        systems: structures, at least one.
        seed: of the probes.
        batching: ``dtype`` and ``max_slots`` of ``LabelledBatches.create``.

    Raises:
        ValueError: for an element that the teacher does not know, or a product that is not finite.
    """
    probes = random_probes(systems, seed)
    bare = with_products(systems, probes, probes)
    batches = LabelledBatches.create(teacher.potential, bare, 1, **batching)
    found = predict_products(teacher.potential, tree.cast(teacher.params, batches.dtype), batches)
    scaled = [labels.properties[PROBE] for labels in bare.labels]
    for index, product in enumerate(found):
        if not np.isfinite(product).all():
            raise ValueError(f"the teacher's Hessian is not finite for structure {index}; leave the structure out.")
    return with_products(systems, scaled, found)


def product_report(dataset: Dataset, found: Sequence[np.ndarray]) -> dict[str, Any]:
    """Errors of products with 95 % intervals over structures.

    Args:
        dataset: structures with products.
        found: predictions (n, 3), in the same order.

    Returns:
        ``hvp_mae_eV_per_A2``, mean absolute error over components; ``hvp_relative_error``, the norm of all errors over
        that of all labels; ``n_hvp``; and ``confidence_95`` of the first two.
    """
    labels = [np.asarray(label.properties[PRODUCT], np.float64) for label in dataset.labels]
    errors = [product - label for product, label in zip(found, labels, strict=True)]
    sums = np.array([
        [np.abs(error).sum(), error.size, np.sum(error**2), np.sum(label**2)]
        for error, label in zip(errors, labels, strict=True)
    ])  # fmt: skip
    drawn = _product_errors(sums[draw_rows(len(sums))].sum(axis=1))
    return {
        **{name: float(value) for name, value in _product_errors(sums.sum(axis=0)).items()},
        "n_hvp": len(sums),
        "confidence_95": {name: confidence_95(values) for name, values in drawn.items()},
    }


def product_errors(model: Model, dataset: Dataset, **batching: Any) -> dict[str, Any]:
    """``product_report`` of a model's first head; ``batching`` as for ``label_products``."""
    batches = LabelledBatches.create(model.potential, dataset, 1, **batching)
    found = predict_products(model.potential, tree.cast(model.params, batches.dtype), batches)
    return product_report(dataset, found)


def _product_errors(sums: np.ndarray) -> dict[str, np.ndarray]:
    absolute, count, squared, reference = np.moveaxis(sums, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {MAE: absolute / count, RELATIVE: np.sqrt(squared / reference)}


def add_products(report: dict[str, Any], products: dict[str, Any]) -> dict[str, Any]:
    """A report of errors with those of products beside them."""
    both = {**report["confidence_95"], **products["confidence_95"]}
    return {**report, **products, "confidence_95": both}


@dataclasses.dataclass(frozen=True, eq=False)
class ProductJudge:
    """Loss and error of products that are held out.

    Attributes:
        objective: of the products.
        batches: structures with products.
        weight: of their loss.
    """

    objective: HessianProducts
    batches: LabelledBatches
    weight: float

    def __call__(self, params: Params) -> tuple[float, dict[str, float]]:
        """Weighted loss, as one batch would have it, and errors."""
        data = self.batches.dataset
        found = predict_products(self.objective.potential, params, self.batches)
        errors = np.concatenate(found) - np.concatenate([label.properties[PRODUCT] for label in data.labels])
        loss = float(jnp.mean(self.objective.penalty(jnp.asarray(np.mean(errors**2, axis=1)))))
        report = product_report(data, found)
        return self.weight * loss, {name: report[name] for name in (MAE, RELATIVE)}
