"""Relaxation with a foreign calculator, by ASE's own optimiser and cell filter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from mlipjax.relaxation import OnStep, ProbeDiverged
from mlipjax.units import GPA
from mlipjax.verbs.inputs import ForeignModel
from mlipjax.verbs.predict import annotate
from mlipjax.verbs.relaxation import Relaxation

if TYPE_CHECKING:
    from ase import Atoms

CellChange = Literal["none", "volume", "full"]
"""Changes that a cell may undergo: nothing, the same stretch of all periodic directions, or any strain of them."""


class Job(NamedTuple):
    """A structure, and which of its coordinates (n, 3) may move."""

    atoms: Atoms
    name: str
    free: np.ndarray


def relax_with_calculator(
    model: ForeignModel,
    job: Job,
    *,
    cell: CellChange,
    pressure: float,
    fmax: float,
    steps: int,
    on_step: OnStep | None = None,
) -> Relaxation:
    """Relax one structure; arguments as ``verbs.relax``, with ``pressure`` in eV/Å^3.

    Raises:
        ValueError: if the cell of a structure with open directions shall relax, or the calculator gives no stress.
        ProbeDiverged: if energies or forces are not finite.
        Exception: whatever the calculator raises.
    """
    from ase.filters import FrechetCellFilter
    from ase.optimize import FIRE

    atoms, name, _ = job
    if cell != "none" and not atoms.pbc.all():
        raise ValueError(f"{name}: with a foreign calculator a cell relaxes only if it is periodic along all vectors.")
    stress = bool(atoms.pbc.all()) and "stress" in model.calculator.implemented_properties
    if cell != "none" and not stress:
        raise ValueError(f"{model.name} gives no stress, so the cell cannot relax: choose cell none.")
    moving = atoms.copy()
    moving.arrays.pop("momenta", None)
    moving.calc = model.calculator
    filtered: Any = moving
    if cell != "none":
        filtered = FrechetCellFilter(moving, hydrostatic_strain=cell == "volume", scalar_pressure=pressure)
    path: list[Atoms] = []

    def record() -> None:
        results = {"energy": float(moving.get_potential_energy()), "forces": moving.get_forces(apply_constraint=False)}
        results |= {"stress": moving.get_stress(apply_constraint=False)} if stress else {}
        try:
            path.append(annotate(moving, results, model.name, name))
        except ValueError as error:
            raise ProbeDiverged(str(error)) from error
        if on_step is not None:
            on_step(len(path), _largest(filtered))

    optimizer = FIRE(filtered, logfile=None)  # pyright: ignore[reportArgumentType]
    optimizer.attach(record)
    optimizer.run(fmax=fmax, steps=steps - 1)
    largest = _largest(filtered)
    return Relaxation(path[0], path[-1], largest < fmax, largest, len(path), pressure / GPA, tuple(path))


def _largest(filtered: Any) -> float:
    return float(np.linalg.norm(filtered.get_forces(), axis=1).max())
