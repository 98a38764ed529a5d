"""Relaxation of structures: positions, and cells under a pressure, with atoms that stay fixed.

Structures of the same atoms are relaxed side by side (``mlipjax.relaxation``); a foreign calculator goes
through ASE's own optimiser. Convergence is that of ``ase.filters.FrechetCellFilter``: the largest force on a free atom,
and the largest component of (stress + pressure) times volume over the number of atoms, are both below ``fmax``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar, overload

import numpy as np
from ase.stress import full_3x3_to_voigt_6_stress

from mlipjax import relaxation
from mlipjax.data.constraints import free_coordinates
from mlipjax.devices import default_slots
from mlipjax.graph import neighbor_table
from mlipjax.graph.verlet import SKIN
from mlipjax.notices import notice
from mlipjax.relaxation import OnStep, ProbeDiverged
from mlipjax.relaxation.cell import strains
from mlipjax.relaxation.run import in_parts
from mlipjax.system import System
from mlipjax.units import GPA
from mlipjax.verbs.dispersion import dispersive
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
from mlipjax.verbs.predict import annotate

if TYPE_CHECKING:
    from ase import Atoms

SYMPREC = 0.01
"""Å, how far atoms may be off for a symmetry to count."""


class Relaxation(NamedTuple):
    """One structure before and after.

    Attributes:
        initial: as given, with energy, forces and stress of the model.
        atoms: relaxed, with the same.
        converged: whether ``fmax`` is below what was asked for.
        fmax: eV/Å, largest force on a free atom, or on the cell.
        steps: evaluations.
        pressure: GPa, of the cell's outside.
        path: every structure on the way, if asked for.
    """

    initial: Atoms
    atoms: Atoms
    converged: bool
    fmax: float
    steps: int
    pressure: float
    path: tuple[Atoms, ...]

    @property
    def energy_change(self) -> float:
        """Energy gained, in eV (negative); of a structure under pressure the enthalpy."""
        change = self.atoms.get_potential_energy() - self.initial.get_potential_energy()
        if self.pressure == 0.0:
            return float(change)
        return float(change + self.pressure * GPA * (self.atoms.cell.volume - self.initial.cell.volume))

    def as_dict(self) -> dict[str, Any]:
        """Numbers before and after, JSON types; keys say the units."""
        return {
            "formula": self.atoms.get_chemical_formula(),
            "n_atoms": len(self.atoms),
            "converged": self.converged,
            "steps": self.steps,
            "fmax_eV_per_A": self.fmax,
            "pressure_GPa": self.pressure,
            "energy_change_eV": self.energy_change,
            "before": describe(self.initial),
            "after": describe(self.atoms),
        }


def moved(atoms: Atoms, system: System) -> Atoms:
    """A copy of ``atoms`` at the positions and cell of ``system``; constraints stay, momenta do not."""
    found = atoms.copy()
    found.arrays.pop("momenta", None)
    found.set_cell(np.asarray(system.cell), scale_atoms=False)
    found.set_positions(np.asarray(system.positions), apply_constraint=False)
    return found


def describe(atoms: Atoms) -> dict[str, Any]:
    """Energy, largest force on what may move, and of a cell its shape, stress and space group; JSON types."""
    calculator: Any = atoms.calc
    results = calculator.results
    found: dict[str, Any] = {
        "energy_eV": float(atoms.get_potential_energy()),
        "max_force_eV_per_A": float(np.linalg.norm(atoms.get_forces(), axis=1).max()),
    }
    if atoms.cell.rank == 3 and atoms.pbc.any():
        found["lengths_A"] = atoms.cell.lengths().tolist()
        found["angles_deg"] = atoms.cell.angles().tolist()
        found["volume_A3"] = float(atoms.cell.volume)
    if "stress" in results:
        found["stress_GPa"] = (results["stress"] / GPA).tolist()
    if atoms.pbc.all():
        found["space_group"] = space_group(atoms)
    return found


def space_group(atoms: Atoms) -> str | None:
    """Symbol and number, such as ``Fd-3m (227)``, within ``SYMPREC``; ``None`` if spglib finds none."""
    import warnings

    import spglib

    cell: Any = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # about how it reports errors
            return spglib.get_spacegroup(cell, symprec=SYMPREC)
    except Exception:  # spglib raises errors of its own since version 2.7, and returned None before
        return None


CellChange = Literal["none", "volume", "full"]
"""Changes that a cell may undergo: nothing, the same stretch of all periodic directions, or any strain of them."""


class Job(NamedTuple):
    """A structure, and which of its coordinates (n, 3) may move."""

    atoms: Atoms
    name: str
    free: np.ndarray


@overload
def relax(
    model: ModelLike, structure: Atoms, *, cell: CellChange = ..., pressure: float = ..., fmax: float = ...,
    steps: int = ..., head: str | None = ..., dtype: str = ..., dispersion: str | None = ..., keep_path: bool = ...,
    on_step: OnStep | None = ..., leave_out: LeaveOut | None = ...,
) -> Relaxation: ...  # fmt: skip


@overload
def relax(
    model: ModelLike, structure: Several, *, cell: CellChange = ..., pressure: float = ..., fmax: float = ...,
    steps: int = ..., head: str | None = ..., dtype: str = ..., dispersion: str | None = ..., keep_path: bool = ...,
    on_step: OnStep | None = ..., leave_out: LeaveOut | None = ...,
) -> list[Relaxation]: ...  # fmt: skip


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
    dispersion: str | None = None,
    keep_path: bool = False,
    on_step: OnStep | None = None,
    leave_out: LeaveOut | None = None,
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
        dispersion: added to the model, as d3bj:FUNCTIONAL (``mlipjax.dispersion``); refused where the labels of a
            published model contain it already.
        keep_path: keep all structures on the way.
        on_step: for progress bars.
        leave_out: called for a structure in which atoms coincide, so that it has no energy and is left out; ``None``
            to refuse it.

    Returns:
        For each structure (one for one ``Atoms``) the relaxed one and what happened.

    Raises:
        ValueError, FileNotFoundError: if model, structures or options cannot be honoured.
        ProbeDiverged: if energies are not finite.

    Examples:
        >>> import mlipjax
        >>> from ase.build import bulk
        >>> mlipjax.relax("universal", bulk("MgO", "rocksalt", a=4.4), cell="full").converged
        True
    """
    _check(cell, pressure, fmax, steps, dtype)
    opened = open_model(model, head)
    opened = dispersive(opened, dispersion)
    jobs = [_job(atoms, name, cell, pressure) for atoms, name in iterate_computable(structure, leave_out)]
    if not jobs:
        raise ValueError("found no structure that can be relaxed.")
    options: Any = {"cell": cell, "pressure": pressure * GPA, "fmax": fmax, "on_step": on_step}
    if isinstance(opened, ForeignModel):
        found = [relax_with_calculator(opened, job, steps=steps, **options) for job in jobs]
        found = [one if keep_path else one._replace(path=()) for one in found]
    else:
        found = _relax_natively(opened, jobs, max_steps=steps, dtype=dtype, keep_path=keep_path, **options)
    return found[0] if is_one(structure) else found


def _check(cell: str, pressure: float, fmax: float, steps: int, dtype: str) -> None:
    if cell not in ("none", "volume", "full"):
        raise ValueError(f"cell must be none, volume or full, found {cell!r}.")
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


def _job(atoms: Atoms, name: str, cell: CellChange, pressure: float) -> Job:
    _named(name, strains, cell, atoms.cell.array, atoms.pbc)
    free = _named(name, free_coordinates, atoms)
    free = np.ones((len(atoms), 3), bool) if free is None else free
    if atoms.has("momenta"):
        notice(f"{name}: its momenta are not used; what is relaxed is at rest.")
    if not free.any():
        raise ValueError(f"{name}: all {len(atoms)} atoms are fixed, so there is nothing to relax.")
    if pressure != 0.0 and not atoms.pbc.all():
        raise ValueError(f"{name}: a pressure needs a structure that is periodic along all three cell vectors.")
    if cell != "none" and not atoms.pbc.all():
        notice("the cell relaxes along its periodic vectors only; the others stay as they are.")
    if cell != "none" and not free.all():
        fixed = int((~free).any(axis=1).sum())
        notice(f"{fixed} fixed atoms keep their place relative to the cell, which relaxes.")
    return Job(atoms, name, free)


def _relax_natively(model: NativeModel, jobs: Sequence[Job], **options: Any) -> list[Relaxation]:
    """Structures of the same atoms side by side, as many as memory allows; ``options`` of ``relaxation.relax``."""
    alike: dict[Any, list[int]] = defaultdict(list)
    for index, job in enumerate(jobs):
        _named(job.name, model.potential.check_elements, np.unique(job.atoms.numbers))
        alike[job.atoms.numbers.tobytes(), tuple(job.atoms.pbc)].append(index)
    found: dict[int, Relaxation] = {}
    for members in alike.values():
        for part, n in in_parts(members, _at_once(model, [jobs[i] for i in members], options["dtype"])):
            relaxed = _side_by_side(model, [jobs[index] for index in part], **options)
            found.update(zip(part[:n], relaxed[:n], strict=True))
    return [found[index] for index in range(len(jobs))]


def _at_once(model: NativeModel, jobs: Sequence[Job], dtype: str) -> int:
    reach = model.potential.cutoff + SKIN
    slots = max(neighbor_table(System.from_ase(job.atoms), reach).max_count for job in jobs)
    limit = max(1, default_slots(dtype) // (len(jobs[0].atoms) * max(slots, 1)))
    # parts of equal size share a compiled program
    return -(-len(jobs) // -(-len(jobs) // limit))


def _side_by_side(model: NativeModel, jobs: Sequence[Job], **options: Any) -> list[Relaxation]:
    name = jobs[0].name if len(jobs) == 1 else f"{jobs[0].name} to {jobs[-1].name}"
    systems, free = [System.from_ase(job.atoms) for job in jobs], np.stack([job.free for job in jobs])
    if (more := model.potential.dispersion) is not None:
        model = dispersive(model, more, systems[0].pbc)
    # with stresses, all relaxations share a compiled program
    found = _named(
        name,
        relaxation.relax,
        model.model,
        systems,
        free=free,
        head=model.head,
        stress=True,
        **options,
    )
    relaxed = []
    for row, job in enumerate(jobs):
        first, last = (_annotated(model, job, at, row) for at in (found.initial, found.final))
        path: list[Atoms] = []
        for snapshot in found.path:
            # who is converged rests while the others go on
            if not path or not np.array_equal(snapshot.systems[row].positions, path[-1].positions):
                path.append(_annotated(model, job, snapshot, row))
        done, left, pressure = bool(found.converged[row]), float(found.residual[row]), options["pressure"] / GPA
        relaxed.append(Relaxation(first, last, done, left, found.steps, pressure, tuple(path)))
    return relaxed


def _annotated(model: NativeModel, job: Job, at: relaxation.Snapshot, row: int) -> Atoms:
    atoms = moved(job.atoms, at.systems[row])
    results: dict[str, Any] = {"energy": float(at.energies[row]), "forces": at.forces[row]}
    if atoms.pbc.any() and atoms.cell.rank == 3:
        results["stress"] = full_3x3_to_voigt_6_stress(at.virials[row] / atoms.cell.volume)
    return annotate(atoms, results, model.name, job.name)


R = TypeVar("R")


def _named(name: str, action: Callable[..., R], *arguments: Any, **options: Any) -> R:
    """Run, and put the name of the structure before what goes wrong."""
    try:
        return action(*arguments, **options)
    except (ValueError, ProbeDiverged) as error:
        raise type(error)(f"{name}: {error}") from error


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
