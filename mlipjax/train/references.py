"""Isolated-atom energies (E0s): from a file, estimated against the model, or kept as the model has them.

A universal potential and the labels of a fine-tuning set come from different codes, pseudopotentials or settings, so
their energies differ by a constant per element, often many eV. Left in, this difference is all that training
sees. Isolated atoms computed with the labels' own settings are best, provided that the model was trained with true
isolated atoms too; a least-squares shift against the model comes close; averages of total energies are useless
(arXiv 2606.12704). Some models (nequix-mp-1) carry E0s fitted to total energies: there isolated atoms are off by
several eV per atom, and the estimate is the right choice.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mlipjax.data import Dataset
from mlipjax.elements import listed, symbols
from mlipjax.potential import Potential
from mlipjax.reading import read_json, shown
from mlipjax.train.batches import LabelledBatches, StructurePrediction, predict
from mlipjax.typing import Params

# Directions in composition space that vary less than this (relative to the largest) are not resolved by the data:
# dividing an energy error of some meV/atom by them would give shifts of several eV.
_RESOLUTION = 1e-3
_MAX_ENERGY = 1e8
"""Largest absolute energy of an atom, eV: all electrons of the heaviest element have 1.5e6."""


class E0Estimate(NamedTuple):
    """Shift of the isolated-atom energies that brings a model's energies closest to the labels.

    Attributes:
        shifts: element -> eV, to be added to the model's E0s.
        rank: number of independent compositions in the data.
        n_elements: number of elements; if larger than ``rank``, the data fix only some combinations of the shifts,
            and the smallest shifts that explain them were taken (the limit of ridge regression).
        residual: root-mean-square energy error that remains, eV/atom.
        before: the same before the shift, eV/atom.
        n_structures: number of energies used.
    """

    shifts: dict[int, float]
    rank: int
    n_elements: int
    residual: float
    before: float
    n_structures: int

    def to_json(self) -> dict[str, Any]:
        """Return the estimate in JSON types, elements by their symbols."""
        return {**self._asdict(), "shifts": dict(zip(symbols(self.shifts), self.shifts.values(), strict=True))}


def read_e0s(path: str | os.PathLike[str]) -> dict[int, float]:
    """Read ``{"H": -1.117, ...}`` (element symbols to eV) from a JSON file; a key ``comment`` is ignored.

    Raises:
        ValueError: if the file is missing or is not such a mapping.
    """
    from ase.data import atomic_numbers

    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: no such file; e0s is a JSON file, 'estimate', 'isolated' or 'model'.")
    content = read_json(path)
    example = 'expected element symbols with energies in eV, such as {"H": -1.117}'
    if not isinstance(content, dict):
        raise ValueError(f"{path}: found a {type(content).__name__}, {example}.")
    e0s = {}
    for symbol, value in content.items():
        if symbol == "comment":
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _MAX_ENERGY
        if not number or atomic_numbers.get(symbol, 0) == 0:
            raise ValueError(f"{path}: found {shown(symbol)}: {shown(value)}, {example}.")
        e0s[atomic_numbers[symbol]] = float(value)
    if not e0s:
        raise ValueError(f"{path}: found no element, {example}.")
    return e0s


def set_e0s(potential: Potential, e0s: Mapping[int, float], required: Sequence[int] = ()) -> Potential:
    """Return the potential with the isolated-atom energies of some elements replaced; others keep theirs.

    Args:
        potential: its first head is changed.
        e0s: atomic number -> eV.
        required: elements that must be in ``e0s``: those of the training data.

    Raises:
        ValueError: if a required element is missing or the potential does not know one.
    """
    missing = [z for z in required if z not in e0s]
    if missing:
        raise ValueError(
            f'isolated-atom energies are missing for {listed(missing)}; add them to the file, or set e0s="estimate".'
        )
    known = {z: value for z, value in e0s.items() if z in potential.species}
    potential.check_elements(required)
    changed = potential.e0s.copy()
    for z, value in known.items():
        changed[0, potential.species.index(z)] = value
    return potential.replace(e0s=changed)


def set_isolated(potential: Potential, energies: Mapping[int, float], required: Sequence[int]) -> Potential:
    """Return the potential with the energies of isolated atoms as E0s of its first head.

    Args:
        potential: with the energies it came with.
        energies: element -> eV.
        required: elements that need one.

    Raises:
        ValueError: if an element has none.
    """
    missing = [z for z in required if z not in energies]
    if missing:
        raise ValueError(
            f"the training set holds no isolated atom with an energy of {listed(missing)}; add a structure of one "
            'atom in a large cell for each, with config_type=IsolatedAtom, or set e0s="estimate".'
        )
    return set_e0s(potential, energies)


def settle_e0s(
    potential: Potential,
    params: Params,
    batches: LabelledBatches,
    e0s: str,
    isolated: Mapping[int, float] | None = None,
) -> tuple[Potential, E0Estimate | None]:
    """Set the isolated-atom energies of the first head as ``e0s`` says.

    Args:
        potential: with the energies it came with.
        params: its parameters.
        batches: training structures.
        e0s: a JSON file, ``"estimate"``, ``"isolated"`` or ``"model"``.
        isolated: element -> eV of the isolated atoms of the training set, for ``"isolated"``.

    Returns:
        The potential, and the estimate if there is one.

    Raises:
        ValueError: if the file or the isolated atoms cannot be used or lack an element, or no structure has an energy.
    """
    if e0s == "model":
        return potential, None
    if e0s == "isolated":
        return set_isolated(potential, isolated or {}, batches.dataset.elements), None
    if e0s != "estimate":
        return set_e0s(potential, read_e0s(e0s), required=batches.dataset.elements), None
    estimate = estimate_e0s(batches.dataset, predict(potential, params, batches))
    return shift_e0s(potential, estimate.shifts), estimate


def estimate_e0s(dataset: Dataset, predictions: Sequence[StructurePrediction]) -> E0Estimate:
    """Fit one energy shift per element to the model's errors by least squares of the energy per atom.

    Solves ``min Σ_s ((E_s - E_model,s - Σ_Z n_sZ x_Z) / n_s)²``; where compositions do not determine ``x``, takes the
    solution with the smallest norm.

    Raises:
        ValueError: if no structure has an energy.
    """
    rows = [row for row, labels in enumerate(dataset.labels) if labels.energy_weight > 0]
    if not rows:
        raise ValueError('E0s cannot be estimated: no structure has an energy. Give a file or set e0s="model".')
    elements = dataset.elements
    fractions, missing = np.empty((len(rows), len(elements))), np.empty(len(rows))
    for place, row in enumerate(rows):
        numbers = np.asarray(dataset.systems[row].atomic_numbers)
        fractions[place] = [np.mean(numbers == z) for z in elements]
        missing[place] = (dataset.labels[row].energy - predictions[row].energy) / len(numbers)
    shifts, _, rank, _ = np.linalg.lstsq(fractions, missing, rcond=_RESOLUTION)
    return E0Estimate(
        shifts=dict(zip(elements, shifts.tolist(), strict=True)),
        rank=int(rank),
        n_elements=len(elements),
        residual=_rms(missing - fractions @ shifts),
        before=_rms(missing),
        n_structures=len(rows),
    )


def shift_e0s(potential: Potential, shifts: Mapping[int, float]) -> Potential:
    """Return the potential with ``shifts`` (atomic number -> eV) added to the E0s of its first head."""
    e0s = {z: potential.e0s[0, potential.species.index(z)] + shift for z, shift in shifts.items()}
    return set_e0s(potential, e0s)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))
