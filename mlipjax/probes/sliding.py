"""Sliding of layers over each other: energy along a vector, and over all shifts (gamma surface).

Everything above one interface moves in the plane. *Rigid*: nothing else changes. *Relaxed*: atoms and the height of the
cell relax along the normal, not in the plane, as usual for generalised stacking faults (Vitek, Philos. Mag. 18, 773
(1968)). Energies are per area of the interface; 1 meV/Å^2 is 16.02 mJ/m^2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from mlipjax.defaults import BOND_FACTOR
from mlipjax.potential import Model
from mlipjax.probes.relax import Engine, Relaxed, check_systems, freedom, plain_task, strain_basis
from mlipjax.probes.relax_batch import SKIN
from mlipjax.probes.result import ProbeResult
from mlipjax.probes.sliding_layers import LayeredCrystal, layered
from mlipjax.probes.sliding_symmetry import equivalent_shifts
from mlipjax.report import probes as figures
from mlipjax.system import System

BATCH = 4
"""Structures evaluated together."""

OnStructures = Callable[[int, int], None]
"""Called with the number of structures done and their total."""

_MEV = 1000.0


@dataclasses.dataclass(frozen=True)
class SlidingSettings:
    """Settings for the computation of shifted crystals.

    Attributes:
        relaxed: whether atoms and cell height relax along the normal, besides the rigid energies.
        fmax: eV/Å, largest force along the normal at which a structure is relaxed.
        max_steps: evaluations at most.
        interface: gap that slips, counted from the lowest layer; the widest one by default.
        bond_factor: see ``layered``.
        head: index of the energy head.
        dtype: "float32" or "float64".
        skin: Å.
    """

    relaxed: bool = True
    fmax: float = 0.02
    max_steps: int = 300
    interface: int | None = None
    bond_factor: float = BOND_FACTOR
    head: int = 0
    dtype: str = "float32"
    skin: float = SKIN


@dataclasses.dataclass(frozen=True)
class SlidingProfile(ProbeResult):
    """Energy along a vector.

    Attributes:
        shift_A: (n,) length of the shift.
        shift_fractions: (n, 2) shifts in the two lattice vectors of the plane.
        rigid_meV_per_A2: (n,) relative to no shift.
        relaxed_meV_per_A2: (n,) relative to the relaxed crystal without shift; NaN if not asked for.
        opening_A: (n,) how much higher the relaxed cell is than without shift; NaN if not asked for.
        converged: whether all relaxations are.
        n_layers: in the cell.
        gap_A: width of the interface in the crystal as given.
        area_A2: of the interface.
    """

    shift_A: np.ndarray
    shift_fractions: np.ndarray
    rigid_meV_per_A2: np.ndarray
    relaxed_meV_per_A2: np.ndarray
    opening_A: np.ndarray
    converged: bool
    n_layers: int
    gap_A: float
    area_A2: float

    @property
    def best(self) -> np.ndarray:
        """(n,) relaxed energies, or rigid ones where there are none."""
        return self.rigid_meV_per_A2 if np.isnan(self.relaxed_meV_per_A2).all() else self.relaxed_meV_per_A2

    @property
    def verdict(self) -> str:
        """Highest point along the vector."""
        relaxed = not np.isnan(self.relaxed_meV_per_A2).all()
        top = int(np.argmax(self.best))
        text = (
            f"sliding barrier {self.best[top]:.2f} meV/Å² ({'relaxed' if relaxed else 'rigid'}) at a shift of "
            f"{self.shift_A[top]:.2f} Å; rigid {self.rigid_meV_per_A2.max():.2f} meV/Å²"
        )
        return text + _remarks(self.best, self.converged, self.n_layers, self.gap_A)

    def figure(self) -> Figure:
        """Energies against the shift."""
        curves: dict[str, tuple[Any, Any]] = {"rigid": (self.shift_A, self.rigid_meV_per_A2)}
        if not np.isnan(self.relaxed_meV_per_A2).all():
            curves["relaxed"] = (self.shift_A, self.relaxed_meV_per_A2)
        return figures.path_profiles(curves, x_label="shift (Å)", y_label="sliding energy (meV/Å²)")


@dataclasses.dataclass(frozen=True)
class GammaSurface(ProbeResult):
    """Energy of every shift on a grid of the two lattice vectors in the plane.

    Attributes:
        fractions: (n,) of both vectors.
        rigid_meV_per_A2: (n, n), relative to no shift.
        relaxed_meV_per_A2: (n, n), relative to the relaxed crystal without shift; NaN if not asked for.
        vectors_A: (2, 2) Å.
        n_computed: shifts that were computed; the others follow by symmetry.
        converged: whether all relaxations are.
        n_layers, gap_A: as in ``SlidingProfile``.
    """

    fractions: np.ndarray
    rigid_meV_per_A2: np.ndarray
    relaxed_meV_per_A2: np.ndarray
    vectors_A: np.ndarray
    n_computed: int
    converged: bool
    n_layers: int
    gap_A: float

    @property
    def best(self) -> np.ndarray:
        """(n, n) relaxed energies, or rigid ones where there are none."""
        return self.rigid_meV_per_A2 if np.isnan(self.relaxed_meV_per_A2).all() else self.relaxed_meV_per_A2

    @property
    def verdict(self) -> str:
        """Highest point of the surface and where it is."""
        i, j = np.unravel_index(int(np.argmax(self.best)), self.best.shape)
        kind = "rigid" if np.isnan(self.relaxed_meV_per_A2).all() else "relaxed"
        text = (
            f"highest sliding energy {self.best.max():.2f} meV/Å² ({kind}) at the shift "
            f"({self.fractions[i]:.3f}, {self.fractions[j]:.3f}); {self.n_computed} of {self.best.size} shifts computed"
        )
        return text + _remarks(self.best, self.converged, self.n_layers, self.gap_A)

    def figure(self) -> Figure:
        """Map over two cells."""
        kind = "rigid" if np.isnan(self.relaxed_meV_per_A2).all() else "relaxed"
        return figures.gamma_surface(self.fractions, self.best, self.vectors_A, kind)


def slide(
    model: Model,
    system: System,
    *,
    vector: Sequence[float] = (1.0, 0.0),
    n_points: int = 13,
    settings: SlidingSettings | None = None,
    on_structures: OnStructures | None = None,
    engine: Engine | None = None,
) -> SlidingProfile:
    """Energy of sliding a layered crystal along a vector in its plane.

    Args:
        model: potential and parameters.
        system: layered crystal whose first two lattice vectors lie in the layers.
        vector: end of the path, in these two vectors; (1, 0) is one period.
        n_points: shifts, both ends included.
        settings: see ``SlidingSettings``.
        on_structures: for progress bars.
        engine: of an earlier call with this model and these settings; see ``neb``.

    Raises:
        ValueError: if the crystal has no layers, or vector or points make no sense.
        ProbeDiverged: if energies are not finite.
    """
    if n_points < 3 or len(vector) != 2 or not np.any(vector):
        raise ValueError(
            f"found vector={tuple(vector)} with {n_points} points; expected two numbers and at least 3 points."
        )
    settings = settings or SlidingSettings()
    fractions = np.linspace(0.0, 1.0, n_points)[:, None] * np.asarray(vector, np.float64)
    crystal, outcome = _shifted(model, system, fractions, settings, on_structures, engine)
    return SlidingProfile(
        shift_A=np.linalg.norm(fractions @ crystal.vectors, axis=1),
        shift_fractions=fractions,
        rigid_meV_per_A2=outcome.rigid,
        relaxed_meV_per_A2=outcome.relaxed,
        opening_A=outcome.opening,
        converged=outcome.converged,
        n_layers=crystal.n_layers,
        gap_A=float(crystal.gaps[-1]),
        area_A2=crystal.area,
    )


def gamma_surface(
    model: Model,
    system: System,
    *,
    n: int = 12,
    reduce: bool = True,
    settings: SlidingSettings | None = None,
    on_structures: OnStructures | None = None,
) -> GammaSurface:
    """Energy of all shifts on an ``n`` x ``n`` grid of the two lattice vectors in the plane.

    Args:
        model: potential and parameters.
        system: layered crystal whose first two lattice vectors lie in the layers.
        n: points along each vector; a multiple of 6 hits the special points of hexagonal layers.
        reduce: compute only one of the shifts that the crystal's symmetry makes equal.
        settings: see ``SlidingSettings``.
        on_structures: for progress bars.

    Raises:
        ValueError: if the crystal has no layers, or the grid is too coarse.
        ProbeDiverged: if energies are not finite.
    """
    if n < 2:
        raise ValueError(f"found n={n}; a surface needs at least 2 points along each vector.")
    settings = settings or SlidingSettings()
    crystal = layered(system, settings.interface, settings.bond_factor)
    everything = np.arange(n * n).reshape(n, n)
    representative = equivalent_shifts(crystal, n) if reduce else everything
    chosen, place = np.unique(representative, return_inverse=True)
    fractions = np.column_stack(np.divmod(chosen, n)) / n
    crystal, outcome = _shifted(model, system, fractions, settings, on_structures)
    place = place.reshape(n, n)
    return GammaSurface(
        fractions=np.arange(n) / n,
        rigid_meV_per_A2=outcome.rigid[place],
        relaxed_meV_per_A2=outcome.relaxed[place],
        vectors_A=crystal.vectors,
        n_computed=len(chosen),
        converged=outcome.converged,
        n_layers=crystal.n_layers,
        gap_A=float(crystal.gaps[-1]),
    )


@dataclasses.dataclass(frozen=True)
class _Outcome:
    """(n,) rigid and relaxed energies in meV/Å^2 relative to the first shift, which is zero, and openings in Å."""

    rigid: np.ndarray
    relaxed: np.ndarray
    opening: np.ndarray
    converged: bool


def _shifted(
    model: Model,
    system: System,
    fractions: np.ndarray,
    settings: SlidingSettings,
    on_structures: OnStructures | None,
    engine: Engine | None = None,
) -> tuple[LayeredCrystal, _Outcome]:
    potential, params = model
    check_systems(potential, [system])
    crystal = layered(system, settings.interface, settings.bond_factor)
    systems = [crystal.slipped(shift) for shift in fractions @ crystal.vectors]
    size = BATCH
    rigid, relaxed, height, converged = [], [], [], []
    with jax.enable_x64(settings.dtype == "float64"):
        engine = engine or Engine(potential, params, settings.head, settings.dtype, settings.skin)
        for begin in range(0, len(systems), size):
            part = systems[begin : begin + size]
            filled = part + [part[-1]] * (size - len(part))
            first, last = _energies(engine, filled, settings)
            rigid += first.tolist()[: len(part)]
            relaxed += last.energies.tolist()[: len(part)]
            height += [float(s.cell[2, 2]) for s in last.systems][: len(part)]
            converged += last.converged.tolist()[: len(part)]
            if on_structures is not None:
                on_structures(begin + len(part), len(systems))
    scale = _MEV / crystal.area
    nothing = np.full(len(systems), np.nan)
    return crystal, _Outcome(
        rigid=scale * (np.array(rigid) - rigid[0]),
        relaxed=scale * (np.array(relaxed) - relaxed[0]) if settings.relaxed else nothing,
        opening=np.array(height) - height[0] if settings.relaxed else nothing,
        converged=all(converged) or not settings.relaxed,
    )


def _energies(engine: Engine, systems: list[System], settings: SlidingSettings) -> tuple[np.ndarray, Relaxed]:
    """Energies (M,) of the structures as they are, and the structures relaxed along the normal."""
    along_normal = freedom(None, systems[0].n_atoms) * np.array([0.0, 0.0, 1.0])
    basis = strain_basis("normal" if settings.relaxed else "fixed", systems)
    still = plain_task(systems, along_normal, basis, np.inf, engine.dtype)
    first = engine.run(systems, still, 1)
    if not settings.relaxed:
        return engine.energies(systems, first), engine.relaxed(systems, still, first)
    task = plain_task(systems, along_normal, basis, settings.fmax, engine.dtype)
    return engine.energies(systems, first), engine.relaxed(systems, task, engine.run(systems, task, settings.max_steps))


def _remarks(energies: np.ndarray, converged: bool, n_layers: int, gap: float) -> str:
    remarks = [f"{n_layers} layer{'s' if n_layers > 1 else ''} per cell, gap {gap:.2f} Å"]
    if not converged:
        remarks.append("NOT all relaxations converged")
    if energies.min() < -0.05:
        remarks.append(f"another stacking is lower by {-energies.min():.2f} meV/Å²")
    return "; " + "; ".join(remarks)
