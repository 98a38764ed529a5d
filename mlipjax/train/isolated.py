"""Isolated atoms among labelled structures: they say where energies are counted from, and nothing about a material.

Many training sets carry one per element (``config_type=IsolatedAtom``). As training structures they would only teach
that a lone atom feels no force; in validation they would decide which epoch is best.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from mlipjax.data import Dataset
from mlipjax.elements import listed
from mlipjax.graph import neighbor_table
from mlipjax.system import System

# An atom is alone if the next one is further away than any model looks.
_REACH = 8.0
_AGREE = 1e-3


class IsolatedAtoms(NamedTuple):
    """Isolated atoms of a data set, and what is left of it.

    Attributes:
        rest: all other structures.
        indices: of the isolated atoms in the data set.
        energies: element -> eV, of those that have an energy.
    """

    rest: Dataset
    indices: tuple[int, ...]
    energies: dict[int, float]


def is_isolated(system: System, info: Mapping[str, Any]) -> bool:
    """Whether a structure is one atom in empty space; one that is said to be may have a smaller cell than others."""
    if system.n_atoms != 1:
        return False
    said = re.sub(r"[^a-z]", "", str(info.get("config_type", "")).lower())
    return said in ("isolatedatom", "isolatedatoms") or not neighbor_table(system, _REACH).mask.any()


def set_apart(dataset: Dataset) -> IsolatedAtoms:
    """Divide a data set into isolated atoms and all others.

    Raises:
        ValueError: if two isolated atoms of one element have different energies.
    """
    indices, energies = [], {}
    for index, (system, label, info) in enumerate(dataset):
        if not is_isolated(system, info):
            continue
        indices.append(index)
        if label.energy_weight > 0.0:
            z, energy = int(np.asarray(system.atomic_numbers)[0]), float(label.energy)
            if abs(energies.setdefault(z, energy) - energy) > _AGREE:
                raise ValueError(
                    f"two isolated atoms of {listed([z])} have the energies {energies[z]:.6g} and "
                    f"{energy:.6g} eV (structure {index}); keep the one whose electronic state is the ground state."
                )
    if not indices:
        return IsolatedAtoms(dataset, (), {})
    rest = dataset.subset(np.setdiff1d(np.arange(len(dataset)), indices))
    return IsolatedAtoms(rest, tuple(indices), energies)
