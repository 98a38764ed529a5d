"""Checks of structures and their values of a property, before a head is trained on them."""

from __future__ import annotations

import math

import numpy as np
from ase import units

from mlipjax.data import Dataset
from mlipjax.data.hashing import first_seen
from mlipjax.data.properties import targets
from mlipjax.notices import notice
from mlipjax.potential import Potential

# Factors between units in which one property is written.
_FACTORS = {
    "Hartree and eV": units.Hartree,
    "Rydberg and eV": units.Rydberg,
    "eV and kcal/mol": units.mol / units.kcal,
    "eV and kJ/mol": units.mol / units.kJ,
    "units and thousandths": 1e3,
}
_LEAST, _NEAR, _FAR = 20, (1.3, 2.0), 10.0
# Structures that are compared one by one; larger sets take too long for what a validation set may cost.
_COMPARED = 20_000


def check_properties(potential: Potential, key: str, train: Dataset, valid: Dataset) -> None:
    """Refuse values and structures of the two sets that cannot belong together.

    Args:
        potential: where a fine-tune would start.
        key: name of the property.
        train, valid: structures and values.

    Raises:
        ValueError: for an unknown element, or validation values in another unit than those of training.
    """
    for name, data in (("training", train), ("validation", valid)):
        try:
            potential.check_elements(data.elements)
        except ValueError as error:
            raise ValueError(f"{name} structures of {key!r}: {error}") from None
    _check_scale(key, targets(train, key), targets(valid, key))
    if len(train) + len(valid) <= _COMPARED:
        first = first_seen([system for data in (train, valid) for system in data.systems])
        shared = np.flatnonzero(first[len(train) :] < len(train))
        if len(shared):
            notice(
                f"{len(shared)} of {len(valid)} validation structures of {key!r} (first: {shared[0]}) are in the "
                "training data, too: an error measured on them says nothing.",
            )


def _check_scale(key: str, train: np.ndarray, valid: np.ndarray) -> None:
    """Values of the two sets by size and by spread: of one unit, they differ by less than units do."""
    if min(len(train), len(valid)) < _LEAST:
        return
    sizes = [float(np.median(np.abs(values))) for values in (train, valid)]
    spreads = [float(np.subtract(*np.percentile(values, [75, 25]))) for values in (train, valid)]
    if min(*sizes, *spreads) <= 0.0:
        return
    factors = sizes[1] / sizes[0], spreads[1] / spreads[0]
    for name, factor in _FACTORS.items():
        for sign in (1.0, -1.0):
            misfits = [abs(math.log(found) - sign * math.log(factor)) for found in factors]
            if all(misfit < math.log(near) for misfit, near in zip(misfits, _NEAR, strict=True)):
                raise ValueError(
                    f"validation values of {key!r} are {factors[0]:.3g} times those of training (medians), and "
                    f"spread {factors[1]:.3g} times as far: like {name}. Write both in one unit."
                )
    if not 1.0 / _FAR < factors[0] < _FAR:
        notice(
            f"validation values of {key!r} are {factors[0]:.3g} times those of training (medians); check that "
            "they are the same property, in one unit."
        )
