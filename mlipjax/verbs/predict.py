"""Energies, forces, stresses and features of structures, as ``ase.Atoms`` that carry them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, overload

import jax
import jax.numpy as jnp
import numpy as np

from mlipjax.defaults import Precision
from mlipjax.devices import WHOLE, default_slots, device_count, mesh_of_parts, put
from mlipjax.dispersion import D3BJ, add_dispersion
from mlipjax.graph import NeighborTable, batch_graphs, bucket_size, neighbor_bucket, neighbor_table
from mlipjax.hosts import refuse_several
from mlipjax.potential import Prediction
from mlipjax.system import System, full_to_voigt, with_results
from mlipjax.train.several import apply_each
from mlipjax.uncertainty import Estimator, Spread, spread
from mlipjax.uncertainty.estimators import cast
from mlipjax.verbs.dispersion import dispersive, open_dispersion
from mlipjax.verbs.error_bars import Uncertainty, open_uncertainty, put_spread
from mlipjax.verbs.inputs import (
    ForeignModel,
    LeaveOut,
    ModelLike,
    NativeModel,
    Several,
    Structures,
    is_one,
    iterate_computable,
    open_model,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms

_LOOSE = 3  # slots of a program that is there already over those of one that fits, at which it is used all the same


@overload
def predict(
    model: ModelLike, data: Atoms, *, head: str | None = ..., dtype: str = ..., precision: Precision = ...,
    batch_size: int = ..., max_slots: int | None = ..., features: bool = ..., uncertainty: Uncertainty | None = ...,
    dispersion: str | None = ...,
) -> Atoms: ...  # fmt: skip


@overload
def predict(
    model: ModelLike, data: Several, *, head: str | None = ..., dtype: str = ..., precision: Precision = ...,
    batch_size: int = ..., max_slots: int | None = ..., features: bool = ..., uncertainty: Uncertainty | None = ...,
    dispersion: str | None = ...,
) -> list[Atoms]: ...  # fmt: skip


def predict(
    model: ModelLike,
    data: Structures,
    *,
    head: str | None = None,
    dtype: str = "float32",
    precision: Precision = "highest",
    batch_size: int = 8,
    max_slots: int | None = None,
    features: bool = False,
    uncertainty: Uncertainty | None = None,
    dispersion: str | None = None,
) -> Atoms | list[Atoms]:
    """Predict energies, forces and stresses; no labels are needed.

    Args:
        model: what ``mlipjax.load`` takes or returns, or ``ase:module:factory``.
        data: ``Atoms``, a list of them, a data set, or files that ASE reads.
        head: name of the energy head; by default the first.
        dtype: precision of the network, "float32" or "float64"; total energies are float64 in both.
        precision: of the network's products (``mlipjax.precision``): "highest", "high" or "default".
        batch_size: structures computed together.
        max_slots: padded atoms times neighbour slots computed at once; by default as many as the memory of the device
            holds (65 536 on CPUs); lower it if memory runs out.
        features: also give the invariant features of every atom, as the array ``features`` (n, F).
        uncertainty: also give standard deviations, as ``info["energy_std"]`` (eV) and the arrays ``energies_std`` and
            ``forces_std``: "llpr", "shallow", "shallow:MEMBERS" or "committee" of a model that ``mlipjax.calibrate``
            has given error bars, or an estimator.
        dispersion: added to the model, as d3bj:FUNCTIONAL (``mlipjax.dispersion``); refused where the labels of a
            published model contain it already.

    Returns:
        Copies of the structures, one for one ``Atoms``, with a calculator that holds ``energy`` (eV), ``forces``
        (eV/Å), ``energies`` per atom (eV) and, where a periodic structure has a volume, ``stress`` (eV/Å^3, tension
        positive), and with the model's name as ``info["model"]``.

    Raises:
        ValueError, FileNotFoundError: if model or structures cannot be used, or a prediction is not finite.

    Examples:
        >>> import mlipjax
        >>> from ase.build import bulk
        >>> round(mlipjax.predict("universal", bulk("NaCl", "rocksalt", a=5.64)).get_potential_energy(), 1)
        -127.2
    """
    options: Any = {"head": head, "dtype": dtype, "precision": precision, "batch_size": batch_size}
    options |= {"max_slots": max_slots, "features": features, "uncertainty": uncertainty, "dispersion": dispersion}
    found = list(predict_each(model, data, **options))
    return found[0] if is_one(data) else found


def predict_each(
    model: ModelLike,
    data: Structures | Iterable[Atoms],
    *,
    head: str | None = None,
    dtype: str = "float32",
    precision: Precision = "highest",
    batch_size: int = 8,
    max_slots: int | None = None,
    features: bool = False,
    uncertainty: Uncertainty | None = None,
    dispersion: str | None = None,
    leave_out: LeaveOut | None = None,
) -> Iterator[Atoms]:
    """Do what ``predict`` does, structure by structure: a file of any size is never in memory as a whole.

    Args:
        model: as for ``predict``, and so are the others.
        data: likewise.
        head: by name.
        dtype: ``"float32"`` or ``"float64"``.
        precision: of the network's products.
        batch_size: structures evaluated together.
        max_slots: likewise.
        features: whether features are stored too.
        uncertainty: whether standard deviations are, and which.
        dispersion: as d3bj:FUNCTIONAL.
        leave_out: called for a structure in which atoms coincide, so that it has no energy and is left out; ``None``
            to refuse it.
    """
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype must be 'float32' or 'float64', found {dtype!r}.")
    if batch_size < 1 or (max_slots is not None and max_slots < 1):
        raise ValueError(f"batch_size and max_slots must be 1 or more, found {batch_size} and {max_slots}.")
    opened = open_model(model, head, precision)
    bars = None if uncertainty is None else open_uncertainty(model, opened, uncertainty)
    more = open_dispersion(dispersion, opened)
    if isinstance(opened, ForeignModel):
        if features:
            raise ValueError(f"{opened.name} is a foreign calculator: it gives no features.")
        yield from _ask_calculator(dispersive(opened, more), iterate_computable(data, leave_out))
        return
    runner = _Runner(opened, dtype, batch_size, max_slots, features, bars, more)
    batch: list[_Member] = []
    for atoms, name in iterate_computable(data, leave_out):
        member = runner.member(atoms, name)
        if batch and not runner.fits([*batch, member]):
            yield from runner.run(batch)
            batch = []
        batch.append(member)
    if batch:
        yield from runner.run(batch)


@dataclasses.dataclass(frozen=True)
class _Member:
    atoms: Atoms
    system: System
    table: NeighborTable
    where: str


class _Runner:
    """Computes batches, with as few compiled shapes as do not waste much."""

    def __init__(
        self,
        model: NativeModel,
        dtype: str,
        batch_size: int,
        max_slots: int | None,
        features: bool,
        bars: Estimator | None,
        dispersion: D3BJ | None,
    ) -> None:
        self.model, self.dtype, self.features, self.dispersion = model, dtype, features, dispersion
        self.batch_size, self.max_slots = batch_size, max_slots or default_slots(dtype)
        self.sizes: list[tuple[int, int]] = []
        self.mesh = mesh_of_parts(batch_size)
        with jax.enable_x64(dtype == "float64"):
            self.params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), model.params)
            self.on_mesh = put(self.params, self.mesh, WHOLE)
            self.bars = None if bars is None else cast(bars, dtype)

    def member(self, atoms: Atoms, name: str) -> _Member:
        system = System.from_ase(atoms)
        try:
            self.model.potential.check_elements(np.unique(system.atomic_numbers))
            table = neighbor_table(system, self.model.potential.cutoff)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        return _Member(atoms, system, table, name)

    def fits(self, batch: Sequence[_Member]) -> bool:
        n_atoms, width = _needed(batch)
        return len(batch) <= self.batch_size and n_atoms * width <= self.max_slots

    def run(self, batch: Sequence[_Member]) -> Iterator[Atoms]:
        """Predict a batch; every device has a part of it."""
        count = min(device_count(self.mesh), len(batch))
        parts = [batch[first::count] for first in range(count)]
        needed = [_needed(part) for part in parts]
        n_atoms, width = self._size(*(max(sizes) for sizes in zip(*needed, strict=True)))
        found: list[Iterator[Atoms]] = []
        with jax.enable_x64(self.dtype == "float64"):
            graphs = [
                batch_graphs(
                    [member.system for member in part],
                    self.model.potential.cutoff,
                    n_atoms=n_atoms,
                    n_neighbors=width,
                    n_graphs=-(-self.batch_size // device_count(self.mesh)),
                    heads=[self.model.head] * len(part),
                    tables=[member.table for member in part],
                    dtype=np.dtype(self.dtype),
                )
                for part in parts
            ]
            predictions = apply_each(self.model.potential, self.on_mesh, graphs, self.mesh, features=self.features)
            for part, graph, prediction in zip(parts, graphs, predictions, strict=True):
                if not self.features:  # as large as all the rest together many times over: they stay on the device
                    prediction = dataclasses.replace(prediction, features=prediction.features[:0])
                bars = self.bars and jax.device_get(spread(self.bars, self.model.potential, self.params, graph))
                found.append(self._each(part, jax.device_get(prediction), bars))
        for place in range(len(batch)):
            yield next(found[place % count])

    def _each(self, part: Sequence[_Member], prediction: Prediction, bars: Spread | None) -> Iterator[Atoms]:
        start = 0
        for row, member in enumerate(part):
            stop = start + len(member.atoms)
            atoms = self._annotated(member, prediction, row, slice(start, stop))
            if bars is not None:
                put_spread(
                    atoms, Spread(bars.energy[row : row + 1], bars.energies[start:stop], bars.forces[start:stop])
                )
            yield atoms
            start = stop

    def _size(self, n_atoms: int, width: int) -> tuple[int, int]:
        close = bucket_size(n_atoms), neighbor_bucket(width)
        limit = _LOOSE * close[0] * close[1]
        fitting = [(n, k) for n, k in self.sizes if n >= n_atoms and k >= width and n * k <= limit]
        if not fitting:
            self.sizes.append(close)
            return close
        return min(fitting, key=lambda size: size[0] * size[1])

    def _annotated(self, member: _Member, prediction: Any, row: int, part: slice) -> Atoms:
        potential, head = self.model.potential, self.model.head
        e0s = potential.e0s[head][np.searchsorted(potential.species, member.system.atomic_numbers)]
        # summed in float64 on the host: float32 cannot hold the sum of many atoms to a meV
        energies = np.asarray(prediction.node_energy[part], np.float64) + e0s
        results: dict[str, Any] = {
            "energy": float(energies.sum()),
            "forces": np.asarray(prediction.forces[part], np.float64),
            "energies": energies,
        }
        if any(member.system.pbc) and member.atoms.cell.rank == 3:
            results["stress"] = full_to_voigt(np.asarray(prediction.stress[row], np.float64))
        if self.dispersion is not None:
            add_dispersion(results, self.dispersion, member.system)
        atoms = annotate(member.atoms, results, self.model.name, member.where)
        if len(potential.heads) > 1:
            atoms.info["head"] = potential.heads[head]
        if self.features:
            atoms.arrays["features"] = np.asarray(prediction.features[part], np.float64)
        return atoms


def annotate(atoms: Atoms, results: dict[str, Any], model: str, name: str) -> Atoms:
    """Return a copy of a structure with results in place of whatever calculator it had.

    Raises:
        ValueError: if a result is not finite, naming the structure (``name``) and its closest atoms.
    """
    for key, value in results.items():
        if not np.isfinite(value).all():
            raise ValueError(f"{name}: the model gives a {key} that is not finite; {_closest(atoms)}.")
    found = atoms.copy()
    found.info["model"] = model
    return with_results(found, **results)


def _closest(atoms: Atoms) -> str:
    from ase.neighborlist import neighbor_list

    for cutoff in (1.0, 2.0, 4.0, 8.0):  # all pairs of many atoms would not fit the memory
        first, second, distances = neighbor_list("ijd", atoms, cutoff)
        if len(distances):
            at = int(np.argmin(distances))
            return f"its closest atoms are {first[at]} and {second[at]}, {distances[at]:.3f} Å apart"
    return "no two of its atoms are within 8 Å"


def _needed(batch: Sequence[_Member]) -> tuple[int, int]:
    n_atoms, width = sum(len(member.atoms) for member in batch), max(member.table.max_count for member in batch)
    return n_atoms, max(width, 1)


def _ask_calculator(model: ForeignModel, structures: Iterable[tuple[Atoms, str]]) -> Iterator[Atoms]:
    from mlipjax.oracles.ase_calculator import evaluate

    refuse_several("a foreign calculator")
    for atoms, name in structures:
        labels = evaluate(model.calculator, System.from_ase(atoms))
        results: dict[str, Any] = {"energy": float(labels.energy), "forces": np.asarray(labels.forces)}
        if labels.stress_weight > 0:
            results["stress"] = full_to_voigt(np.asarray(labels.stress, np.float64))
        yield annotate(atoms, results, model.name, name)
