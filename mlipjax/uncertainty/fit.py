"""Fitting the posterior of a last layer to training structures, and its two numbers to held-out groups."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlipjax import tree
from mlipjax.devices import default_slots
from mlipjax.graph import batches_of
from mlipjax.potential import Model
from mlipjax.system import System
from mlipjax.uncertainty.estimators import Estimator, Rigidity, Spread, cast, spread
from mlipjax.uncertainty.last_layer import held_out_features, last_layer_paths, training_rows

_FLOOR = 1e-6
"""Smallest variance that counts, as a fraction of the mean: a force that is zero by symmetry calibrates nothing."""
_RIDGES = np.logspace(-12, 1, 105)


@dataclasses.dataclass(frozen=True)
class Errors:
    """Errors of a model on n held-out structures.

    Attributes:
        energy: (n,) eV, of whole structures; NaN without a label.
        forces: n arrays (n_i, 3) in eV/Å; NaN without a label.
        groups: (n,) what belongs together: frames of one trajectory are no independent evidence.
    """

    energy: np.ndarray
    forces: Sequence[np.ndarray]
    groups: Sequence[Any]

    def subset(self, rows: Sequence[int] | np.ndarray) -> Errors:
        """The errors of some structures."""
        return Errors(self.energy[rows], [self.forces[i] for i in rows], [self.groups[i] for i in rows])


@dataclasses.dataclass(frozen=True)
class Computed:
    """Batching and precision of predictions.

    Attributes:
        head: index of the energy head.
        dtype: "float32" or "float64".
        batch_size: structures computed together.
        max_slots: padded atoms times neighbour slots of a batch; by default ``devices.default_slots``.
    """

    head: int = 0
    dtype: str = "float32"
    batch_size: int = 8
    max_slots: int | None = None

    def batches(self, model: Model, systems: Sequence[System]) -> Any:
        """Batches with the places of their structures."""
        options = dataclasses.asdict(self)
        options["max_slots"] = self.max_slots or default_slots(self.dtype)
        return batches_of(systems, model.potential.cutoff, **options)


def fit_rigidity(
    model: Model,
    train: Sequence[System],
    held_out: Sequence[System],
    errors: Errors,
    *,
    moves: int = 4,
    seed: int = 0,
    how: Computed = Computed(),
) -> Rigidity:
    """Fit the posterior of the last layer: one pass over the training structures, then ``alpha`` and ``s``.

    ``H`` sums energies per atom over the square of their error, and forces over the square of theirs (both errors are
    root mean squares over the held-out structures): the weights of a Gaussian likelihood. ``s`` minimises the negative
    logarithm of the likelihood of the held-out errors, in which ``alpha`` has a closed form: the root of the mean of
    ``error^2 / variance``. Every group of held-out structures counts once.

    Args:
        model: with any head; its labels are not needed.
        train: structures it was trained on.
        held_out: structures it was not trained on.
        errors: of the model there.
        moves: random moves per training structure that stand for its forces; 0 for energies alone.
        seed: of these moves.
        how: head, precision, sizes.

    Raises:
        ValueError: if no label is held out, or the model has no linear last layer.
    """
    potential, params = model.potential, tree.cast(model.params, how.dtype)
    paths = last_layer_paths(params, potential.heads[how.head])
    noise = _noise(errors, [len(system.atomic_numbers) for system in held_out])
    gram, key = 0.0, jax.random.key(seed)
    for number, (indices, graph) in enumerate(how.batches(model, train)):
        found = training_rows(potential, params, graph, paths, jax.random.fold_in(key, number), moves)
        energies, forces = (np.asarray(rows, np.float64)[..., : len(indices), :] for rows in found)
        gram = (
            gram + outer(energies / noise[0]) + outer(forces.reshape(-1, energies.shape[1]) / noise[1]) / max(moves, 1)
        )
    rigidity = rigidity_of(gram, paths)
    return _calibrated(rigidity, model, held_out, errors, how)


def outer(rows: np.ndarray) -> np.ndarray:
    """Sum of the outer products of rows (n, F)."""
    return rows.T @ rows


def rigidity_of(gram: Any, paths: tuple[str, ...] = (), ridge: float = 1e-6) -> Rigidity:
    """The posterior that belongs to a Gauss-Newton matrix, with ``alpha = 1``.

    Args:
        gram: (F, F).
        paths: of the last layer's parameters.
        ridge: ``s^2`` as a fraction of the mean of the diagonal.
    """
    eigenvalues, basis = np.linalg.eigh(np.asarray(gram, np.float64))
    eigenvalues = np.maximum(eigenvalues, 0.0)
    arrays = basis, eigenvalues, ridge * np.mean(eigenvalues), np.ones(2)
    return Rigidity(*arrays, paths=paths)  # pyright: ignore[reportArgumentType]


def calibrated(estimator: Any, spreads: Sequence[Spread], errors: Errors) -> Any:
    """The estimator with the scales at which held-out errors are likeliest, by closed form.

    Args:
        estimator: whose spreads these are; its own scales are kept in them.
        spreads: of every held-out structure (``spreads_of``).
        errors: there.

    Raises:
        ValueError: if no label is held out.
    """
    energy = np.array([float(found.energy[0]) for found in spreads]) ** 2
    forces = [np.asarray(found.forces)[..., None] ** 2 for found in spreads]
    (_, first), (_, second) = _energy_score(energy[:, None], errors), _force_score(forces, errors)
    _check_known(first, second)
    scales = [float(np.sqrt(value[0])) if value is not None else 1.0 for value in (first, second)]
    return estimator.replace(scale=np.asarray(estimator.scale, np.float64) * np.array(scales))


def spreads_of(
    estimator: Estimator,
    model: Model,
    systems: Sequence[System],
    *,
    how: Computed = Computed(),
) -> list[Spread]:
    """Standard deviations of every structure, as numpy arrays of its own atoms, in the order given.

    Args:
        estimator: of the model.
        model: that predicts.
        systems: structures.
        how: head, precision, sizes.
    """
    params, own = tree.cast(model.params, how.dtype), cast(estimator, how.dtype)
    found: list[Any] = [None] * len(systems)
    for indices, graph in how.batches(model, systems):
        batch = jax.device_get(spread(own, model.potential, params, graph))
        start = 0
        for row, index in enumerate(indices):
            stop = start + len(systems[index].atomic_numbers)
            found[index] = Spread(batch.energy[row : row + 1], batch.energies[start:stop], batch.forces[start:stop])
            start = stop
    return found


def _noise(errors: Errors, sizes: Sequence[int]) -> tuple[float, float]:
    """Root mean square errors of energies per atom in eV and of forces in eV/Å; infinite without labels."""
    energy = errors.energy / np.asarray(sizes)
    flat = np.concatenate([np.ravel(own) for own in errors.forces])
    parts = [values[np.isfinite(values)] for values in (energy, flat)]
    if not any(len(part) for part in parts):
        raise ValueError("held-out structures have no energy and no forces; error bars are calibrated on their errors.")
    first, second = (float(np.sqrt(np.mean(part**2))) if len(part) else np.inf for part in parts)
    return max(first, 1e-12), max(second, 1e-12)


def _calibrated(rigidity: Rigidity, model: Model, systems: Sequence[System], errors: Errors, how: Computed) -> Rigidity:
    """The posterior with the ``s`` and the ``alpha`` at which the held-out errors are likeliest."""
    params = tree.cast(model.params, how.dtype)
    basis = jnp.asarray(rigidity.basis, how.dtype)
    energy: Any = [None] * len(systems)
    forces: Any = [None] * len(systems)
    for indices, graph in how.batches(model, systems):
        found = held_out_features(model.potential, params, graph, rigidity.paths, basis)
        sums, slopes = (np.asarray(rows, np.float64) ** 2 for rows in found)
        start = 0
        for row, index in enumerate(indices):
            stop = start + len(systems[index].atomic_numbers)
            energy[index], forces[index] = sums[row], np.moveaxis(slopes[:, start:stop], 0, -1)
            start = stop
    ridges = _RIDGES * max(float(np.mean(rigidity.eigenvalues)), 1e-300)
    inverse = 1.0 / (np.asarray(rigidity.eigenvalues)[:, None] + ridges)
    first, alpha = _energy_score(np.stack(energy) @ inverse, errors)
    second, beta = _force_score([own @ inverse for own in forces], errors)
    _check_known(alpha, beta)
    best = int(np.argmin(first + second))
    scales = [np.sqrt(value[best]) for value in (alpha, beta) if value is not None]
    ridge, scale = np.asarray(ridges[best]), np.array([scales[0], scales[-1]])
    return rigidity.replace(ridge=ridge, scale=scale)  # pyright: ignore[reportAttributeAccessIssue]


def _check_known(*alphas: Any) -> None:
    if all(alpha is None for alpha in alphas):
        raise ValueError("held-out structures have no energy and no forces; error bars are calibrated on their errors.")


def _energy_score(variance: np.ndarray, errors: Errors) -> tuple[Any, Any]:
    """``_score`` of energies with variances (n, S)."""
    return _score(list(variance[:, None, :]), list(errors.energy[:, None]), errors.groups)


def _force_score(variance: Sequence[np.ndarray], errors: Errors) -> tuple[Any, Any]:
    """``_score`` of forces with variances (n_i, 3, S)."""
    return _score([own.reshape(-1, own.shape[-1]) for own in variance], [np.ravel(own) for own in errors.forces],
                  errors.groups)  # fmt: skip


def _score(variance: Sequence[np.ndarray], errors: Sequence[np.ndarray], groups: Sequence[Any]) -> tuple[Any, Any]:
    """Negative log-likelihood (S,) at the best scale, less a constant, and that scale squared (S,).

    Both are ``0.0, None`` without labels. For one Gaussian an error, ``-log L = (log a + <log v> + <e^2/v> / a) / 2``
    is least at ``a = <e^2/v>``. Means are over groups of means over structures of means over components.

    Args:
        variance: (m, S) of the m components of every structure at S settings.
        errors: (m,) of every structure.
        groups: of the structures.
    """
    known = [i for i, own in enumerate(errors) if np.isfinite(own).all() and len(own)]
    if not known:
        return 0.0, None
    floor = _FLOOR * np.mean([variance[i].mean(axis=0) for i in known], axis=0)
    sums: dict[Any, list[np.ndarray]] = {}
    for i in known:
        own = np.maximum(variance[i], np.maximum(floor, 1e-300))
        pair = np.stack([np.log(own).mean(axis=0), (errors[i][:, None] ** 2 / own).mean(axis=0)])
        sums.setdefault(groups[i], []).append(pair)
    logarithm, ratio = np.mean([np.mean(own, axis=0) for own in sums.values()], axis=0)
    ratio = np.maximum(ratio, 1e-300)
    return 0.5 * (np.log(ratio) + logarithm + 1.0), ratio
