"""Relaxation of structures: positions, and cells under a pressure, with atoms that stay fixed.

Structures of the same atoms are relaxed side by side in one compiled loop (``probes.relax``); a foreign calculator goes
through ASE's own optimiser. Convergence is that of ``ase.filters.FrechetCellFilter``: the largest force on a free atom,
and the largest component of (stress + pressure) times volume over the number of atoms, are both below ``fmax``.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from ase.stress import full_3x3_to_voigt_6_stress

from mlipjax.defaults import MAX_SLOTS
from mlipjax.graph import neighbor_table
from mlipjax.notices import notice
from mlipjax.probes.relax import Engine, OnStep, ProbeDiverged, freedom, plain_task
from mlipjax.probes.relax_batch import SKIN
from mlipjax.probes.relax_search import Search
from mlipjax.system import System
from mlipjax.units import GPA
from mlipjax.verbs.inputs import ForeignModel, ModelLike, NativeModel, Structures, is_one, iterate, open_model, where
from mlipjax.verbs.predict import annotate
from mlipjax.verbs.relax_ase import relax_with_calculator
from mlipjax.verbs.relax_cells import CellChange, free_atoms, strains
from mlipjax.verbs.relaxation import Relaxation, moved

if TYPE_CHECKING:
    from ase import Atoms


def relax(
    model: ModelLike,
    structure: Structures,
    *,
    cell: CellChange = "none",
    pressure: float = 0.0,
    fmax: float = 0.01,
    steps: int = 500,
    head: str | None = None,
    dtype: str = "float64",
    keep_path: bool = False,
    on_step: OnStep | None = None,
) -> Relaxation | list[Relaxation]:
    """Relax structures; what is not converged after ``steps`` says so.

    Args:
        model: what ``mlipjax.load`` takes or returns, or ``ase:module:factory``.
        structure: ``Atoms``, a list of them, a data set, or files that ASE reads; all are relaxed. Fixed atoms
            (``FixAtoms``) keep their place, in a cell that changes relative to it.
        cell: what relaxes besides positions: "none", "volume" (the shape stays) or "full". A slab's cell relaxes in
            its plane only.
        pressure: GPa on the outside; needs a cell that relaxes.
        fmax: eV/Å, largest force at which a structure is converged.
        steps: evaluations at most.
        head: name of the energy head; by default the first.
        dtype: precision of the network, "float64" or "float32".
        keep_path: keep all structures on the way.
        on_step: for progress bars.

    Returns:
        For each structure (one for one ``Atoms``) the relaxed one and what happened.

    Raises:
        ValueError, FileNotFoundError: if model, structures or options cannot be honoured.
        ProbeDiverged: if energies are not finite.

    >>> import mlipjax
    >>> from ase.build import bulk
    >>> mlipjax.relax("universal", bulk("MgO", "rocksalt", a=4.4), cell="full").converged
    True
    """
    _check(cell, pressure, fmax, steps, dtype)
    opened = open_model(model, head)
    frames = list(iterate(structure))
    if not frames:
        raise ValueError("found no structure to relax.")
    names = [where(structure, index) for index in range(len(frames))]
    jobs = [_job(atoms, name, cell, pressure) for atoms, name in zip(frames, names, strict=True)]
    if isinstance(opened, ForeignModel):
        options: Any = {"cell": cell, "pressure": pressure * GPA, "fmax": fmax, "steps": steps}
        found = [relax_with_calculator(opened, job.atoms, job.name, on_step=on_step, **options) for job in jobs]
        found = [one if keep_path else one._replace(path=()) for one in found]
    else:
        found = _Relaxer(opened, pressure, fmax, steps, dtype, keep_path, on_step)(jobs)
    return found[0] if is_one(structure) else found


def _check(cell: str, pressure: float, fmax: float, steps: int, dtype: str) -> None:
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype must be 'float32' or 'float64', found {dtype!r}.")
    if not (np.isfinite(fmax) and fmax > 0.0):
        raise ValueError(f"fmax is a force in eV/Å and positive, found {fmax}.")
    if steps < 1:
        raise ValueError(f"steps must be 1 or more, found {steps}.")
    if not np.isfinite(pressure):
        raise ValueError(f"pressure is a number of GPa, found {pressure}.")
    if pressure != 0.0 and cell == "none":
        raise ValueError(
            f'a pressure of {pressure} GPa acts on a cell that relaxes: choose cell="volume" or cell="full".'
        )


class _Job(NamedTuple):
    """A structure with what may move: strains (S, 3, 3) and atoms (n,)."""

    atoms: Atoms
    name: str
    basis: np.ndarray
    free: np.ndarray


def _job(atoms: Atoms, name: str, cell: CellChange, pressure: float) -> _Job:
    basis, free = strains(cell, atoms, name), free_atoms(atoms, name)
    if pressure != 0.0 and not atoms.pbc.all():
        raise ValueError(f"{name}: a pressure needs a structure that is periodic along all three cell vectors.")
    if len(basis) and not atoms.pbc.all():
        notice("the cell relaxes along its periodic vectors only; the others stay as they are.")
    if len(basis) and not free.all():
        notice(f"{int((~free).sum())} fixed atoms keep their place relative to the cell, which relaxes.")
    return _Job(atoms, name, basis, free)


class _Relaxer:
    """Relaxes structures of the same atoms side by side, as many as memory allows."""

    def __init__(
        self,
        model: NativeModel,
        pressure: float,
        fmax: float,
        steps: int,
        dtype: str,
        keep_path: bool,
        on_step: OnStep | None,
    ) -> None:
        self.model, self.pressure, self.fmax, self.steps = model, pressure, fmax, steps
        self.dtype, self.keep_path, self.on_step = dtype, keep_path, on_step

    def __call__(self, jobs: Sequence[_Job]) -> list[Relaxation]:
        alike: dict[Any, list[int]] = defaultdict(list)
        for index, job in enumerate(jobs):
            _named(job.name, self.model.potential.check_elements, np.unique(job.atoms.numbers))
            numbers, pbc, free = job.atoms.numbers.tobytes(), tuple(job.atoms.pbc), job.free.tobytes()
            alike[numbers, pbc, free, np.round(job.basis, 6).tobytes()].append(index)
        found: dict[int, Relaxation] = {}
        for members in alike.values():
            at_once = self._at_once([jobs[index] for index in members])
            for start in range(0, len(members), at_once):
                part = members[start : start + at_once]
                found.update(zip(part, self._side_by_side([jobs[index] for index in part]), strict=True))
        return [found[index] for index in range(len(jobs))]

    def _at_once(self, jobs: Sequence[_Job]) -> int:
        reach = self.model.potential.cutoff + SKIN
        slots = max(neighbor_table(System.from_ase(job.atoms), reach).max_count for job in jobs)
        limit = max(1, MAX_SLOTS // (len(jobs[0].atoms) * max(slots, 1)))
        # parts of equal size share a compiled program
        return -(-len(jobs) // -(-len(jobs) // limit))

    def _side_by_side(self, jobs: Sequence[_Job]) -> list[Relaxation]:
        systems, names = [System.from_ase(job.atoms) for job in jobs], [job.name for job in jobs]
        paths: list[list[Atoms]] = [[] for _ in jobs]
        with jax.enable_x64(self.dtype == "float64"):
            engine = Engine(self.model.potential, self.model.params, self.model.head, self.dtype)
            # a cell that does not move has six strains of zero, so that all relaxations share a compiled program
            basis = jobs[0].basis if len(jobs[0].basis) else np.zeros((6, 3, 3))
            free = freedom(jobs[0].free, systems[0].n_atoms)
            task = plain_task(systems, free, basis, self.fmax, self.dtype, self.pressure * GPA)

            def found(search: Search) -> list[Atoms]:
                relaxed = engine.relaxed(systems, task, search)
                virials = np.asarray(search.virial, np.float64)
                return [
                    self._annotated(job, relaxed.systems[row], relaxed.energies[row], relaxed.forces[row], virials[row])
                    for row, job in enumerate(jobs)
                ]

            def record(search: Search) -> None:
                for path, atoms in zip(paths, found(search), strict=True):
                    # who is converged rests while the others go on
                    if not path or not np.array_equal(atoms.positions, path[-1].positions):
                        path.append(atoms)

            name = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
            at_rest = dataclasses.replace(task, fmax=jnp.asarray(np.inf, self.dtype))
            first = found(_named(name, engine.run, systems, at_rest, 1))
            on_search = record if self.keep_path else None
            search = _named(name, engine.run, systems, task, self.steps, self.on_step, on_search)
            last, outcome = found(search), engine.relaxed(systems, task, search)
        return [
            Relaxation(first[row], last[row], bool(done), float(residual), outcome.steps, self.pressure, tuple(path))
            for row, (done, residual, path) in enumerate(zip(outcome.converged, outcome.residual, paths, strict=True))
        ]

    def _annotated(self, job: _Job, system: System, energy: float, forces: np.ndarray, virial: np.ndarray) -> Atoms:
        atoms = moved(job.atoms, system if len(job.basis) else dataclasses.replace(system, cell=job.atoms.cell.array))
        results: dict[str, Any] = {"energy": float(energy), "forces": forces}
        if atoms.pbc.any() and atoms.cell.rank == 3:
            results["stress"] = full_3x3_to_voigt_6_stress(virial / atoms.cell.volume)
        return annotate(atoms, results, self.model.name, job.name)


R = TypeVar("R")


def _named(name: str, action: Callable[..., R], *arguments: Any) -> R:
    """Run, and put the name of the structure before what goes wrong."""
    try:
        return action(*arguments)
    except (ValueError, ProbeDiverged) as error:
        raise type(error)(f"{name}: {error}") from error
