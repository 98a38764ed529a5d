"""Level of theory of models and labels: dispersion beside a model, refused where its labels contain it already; +U."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

from mlipjax.data import Dataset
from mlipjax.dispersion import D3BJ, parse_dispersion
from mlipjax.elements import listed
from mlipjax.models.registry import find_known
from mlipjax.notices import notice
from mlipjax.system import System
from mlipjax.train.batches import StructurePrediction
from mlipjax.verbs.inputs import ForeignModel, NativeModel

M = TypeVar("M", bound=NativeModel | ForeignModel)
_LIGANDS = {8, 9}


def open_dispersion(spec: str | None, model: NativeModel | ForeignModel) -> D3BJ | None:
    """Read ``d3bj:FUNCTIONAL``; ``None`` is none.

    Raises:
        ValueError: if it cannot be read, or a published model was trained on labels that contain dispersion.
    """
    if spec is None:
        return None
    found = parse_dispersion(spec)
    if (entry := find_known(model.name)) is None:
        return found
    if entry.dispersion:
        raise ValueError(
            f"the labels of {entry.name} ({entry.level}) contain dispersion already; leave it out, or take a model of a"
            " functional without it (mlipjax models NAME says so)."
        )
    if found.functional.lower() not in (own := [name.lower() for name in entry.functionals]):
        notice(f"{entry.name} was trained on {'/'.join(own)}; the dispersion of {found.functional} is added to it.")
    return found


def say_level(model: str, dataset: Dataset) -> None:
    """Say of a model of DFT+U which structures have a U there: labels without it are of another level of theory.

    Args:
        model: its name; nothing is known of models that are not published under one.
        dataset: labelled structures.
    """
    entry = find_known(model)
    if entry is None or not entry.hubbard_u:
        return
    elements = [set(map(int, system.atomic_numbers)) for system in dataset.systems]
    with_u = [sorted(found & set(entry.hubbard_elements)) for found in elements if found & _LIGANDS]
    if n := sum(map(bool, with_u)):
        notice(
            f"{model} was trained on {entry.functional}: {n} of {len(dataset)} structures hold "
            f"{listed(sorted({z for found in with_u for z in found}))} with O or F, which have a U there. Labels "
            'without the same U have another zero of energy (e0s="estimate" takes it from the data) and other forces.'
        )


def dispersive(model: M, dispersion: str | D3BJ | None, pbc: Sequence[bool] | None = None) -> M:
    """The model with dispersion: a foreign calculator in a sum, a potential in whatever it evaluates.

    Args:
        model: without it.
        dispersion: or its name, which is opened (``open_dispersion``).
        pbc: periodic directions of all structures that the potential evaluates.
    """
    if isinstance(dispersion, str):
        dispersion = open_dispersion(dispersion, model)
    if dispersion is None:
        return model
    if isinstance(model, NativeModel):
        dispersion = dispersion if pbc is None else dispersion.along(pbc)
        return dataclasses.replace(model, potential=model.potential.replace(dispersion=dispersion))
    from ase.calculators.mixing import SumCalculator
    from dftd3.ase import DFTD3

    both = SumCalculator([model.calculator, DFTD3(method=dispersion.functional, damping="d3bj")])
    return dataclasses.replace(model, calculator=both)


def with_dispersion(
    found: Sequence[StructurePrediction], systems: Sequence[System], dispersion: D3BJ | None
) -> Sequence[StructurePrediction]:
    """Predictions with the dispersion of their structures."""
    if dispersion is None:
        return found
    added = []
    for one, system in zip(found, systems, strict=True):
        more = dispersion.of(system)
        stress = one.stress + (more.virial / system.volume if system.volume else 0.0)
        added.append(StructurePrediction(one.energy + float(more.energy), one.forces + more.forces, stress))
    return added
