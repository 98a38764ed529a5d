"""Sliding of layers over each other: energy along a vector, and over all shifts (gamma surface).

Everything above one interface moves in the plane. *Rigid*: nothing else changes. *Relaxed*: atoms and the height of the
cell relax along the normal, not in the plane, as usual for generalised stacking faults (Vitek, Philos. Mag. 18, 773
(1968)). Energies are per area of the interface; 1 meV/Å^2 is 16.02 mJ/m^2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mlipjax.defaults import BOND_FACTOR
from mlipjax.potential import Model
from mlipjax.probes.result import ProbeResult
from mlipjax.probes.sliding_layers import LayeredCrystal, equivalent_shifts, layered
from mlipjax.relaxation.run import in_parts, relax
from mlipjax.relaxation.search import check_systems
from mlipjax.report import probes as figures
from mlipjax.system import System

BATCH = 4
"""Structures evaluated together."""

OnStructures = Callable[[int, int], None]
"""Called with the number of structures done and their total."""

_MEV = 1000.0


@dataclasses.dataclass(frozen=True)
class SlidingSettings:
    """Settings of the computation of shifted crystals.

    Attributes:
        relaxed: whether atoms and cell height relax along the normal, besides the rigid energies.
        fmax: eV/Å, largest force along the normal at which a structure is relaxed.
        max_steps: evaluations at most.
        interface: gap that slips, counted from the lowest layer; the widest one by default.
        bond_factor: see ``layered``.
        head: index of the energy head.
        dtype: "float32" or "float64".
    """

    relaxed: bool = True
    fmax: float = 0.02
    max_steps: int = 300
    interface: int | None = None
    bond_factor: float = BOND_FACTOR
    head: int = 0
    dtype: str = "float32"


@dataclasses.dataclass(frozen=True)
class Sliding(ProbeResult):
    """Energies of shifted crystals.

    Attributes:
        rigid_meV_per_A2: relative to no shift.
        relaxed_meV_per_A2: relative to the relaxed crystal without shift; NaN if not asked for.
        converged: whether all relaxations are.
        n_layers: in the cell.
        gap_A: width of the interface in the crystal as given.
    """

    rigid_meV_per_A2: np.ndarray
    relaxed_meV_per_A2: np.ndarray
    converged: bool
    n_layers: int
    gap_A: float

    @property
    def kind(self) -> str:
        """Tell whether ``best`` is "relaxed" or "rigid"."""
        return "rigid" if np.isnan(self.relaxed_meV_per_A2).all() else "relaxed"

    @property
    def best(self) -> np.ndarray:
        """Relaxed energies, or rigid ones where there are none."""
        return self.rigid_meV_per_A2 if self.kind == "rigid" else self.relaxed_meV_per_A2

    @property
    def _remarks(self) -> str:
        remarks = [f"{self.n_layers} layer{'s' if self.n_layers > 1 else ''} per cell, gap {self.gap_A:.2f} Å"]
        if not self.converged:
            remarks.append("NOT all relaxations converged")
        if self.best.min() < -0.05:
            remarks.append(f"another stacking is lower by {-self.best.min():.2f} meV/Å²")
        return "; " + "; ".join(remarks)


@dataclasses.dataclass(frozen=True)
class SlidingProfile(Sliding):
    """Energy along a vector: (n,) numbers.

    Attributes:
        shift_A: (n,) length of the shift.
        shift_fractions: (n, 2) shifts in the two lattice vectors of the plane.
        opening_A: (n,) how much higher the relaxed cell is than without shift; NaN if not asked for.
        area_A2: of the interface.
    """

    shift_A: np.ndarray
    shift_fractions: np.ndarray
    opening_A: np.ndarray
    area_A2: float

    @property
    def verdict(self) -> str:
        """Highest point along the vector."""
        top = int(np.argmax(self.best))
        return (
            f"sliding barrier {self.best[top]:.2f} meV/Å² ({self.kind}) at a shift of {self.shift_A[top]:.2f} Å; rigid "
            f"{self.rigid_meV_per_A2.max():.2f} meV/Å²{self._remarks}"
        )

    def figure(self) -> Figure:
        """Energies against the shift."""
        return figures.sliding_profile(self.shift_A, self.rigid_meV_per_A2, self.relaxed_meV_per_A2)


@dataclasses.dataclass(frozen=True)
class GammaSurface(Sliding):
    """Energy of every shift on a grid of the two lattice vectors in the plane: (n, n) numbers.

    Attributes:
        fractions: (n,) of both vectors.
        vectors_A: (2, 2) Å.
        n_computed: shifts that were computed; the others follow by symmetry.
    """

    fractions: np.ndarray
    vectors_A: np.ndarray
    n_computed: int

    @property
    def verdict(self) -> str:
        """Highest point of the surface and where it is."""
        i, j = np.unravel_index(int(np.argmax(self.best)), self.best.shape)
        return (
            f"highest sliding energy {self.best.max():.2f} meV/Å² ({self.kind}) at the shift "
            f"({self.fractions[i]:.3f}, {self.fractions[j]:.3f}); {self.n_computed} of {self.best.size} shifts computed"
            f"{self._remarks}"
        )

    def figure(self) -> Figure:
        """Map over two cells."""
        return figures.gamma_surface(self.fractions, self.best, self.vectors_A, self.kind)


def slide(
    model: Model,
    system: System,
    *,
    vector: Sequence[float] = (1.0, 0.0),
    n_points: int = 13,
    settings: SlidingSettings | None = None,
    on_structures: OnStructures | None = None,
) -> SlidingProfile:
    """Energy of sliding a layered crystal along a vector in its plane.

    Args:
        model: potential and parameters.
        system: layered crystal whose first two lattice vectors lie in the layers.
        vector: end of the path, in these two vectors; (1, 0) is one period.
        n_points: shifts, both ends included.
        settings: see ``SlidingSettings``.
        on_structures: for progress bars.

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
    crystal, energies, opening = _shifted(model, system, fractions, settings, on_structures)
    return SlidingProfile(
        **energies,
        shift_A=np.linalg.norm(fractions @ crystal.vectors, axis=1),
        shift_fractions=fractions,
        opening_A=opening,
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
    crystal, energies, _ = _shifted(model, system, fractions, settings, on_structures)
    everywhere = {name: energies[name][place.reshape(n, n)] for name in _ENERGIES}
    return GammaSurface(
        **{**energies, **everywhere},
        fractions=np.arange(n) / n,
        vectors_A=crystal.vectors,
        n_computed=len(chosen),
    )


_ENERGIES = ("rigid_meV_per_A2", "relaxed_meV_per_A2")


def _shifted(
    model: Model,
    system: System,
    fractions: np.ndarray,
    settings: SlidingSettings,
    on_structures: OnStructures | None,
) -> tuple[LayeredCrystal, dict[str, Any], np.ndarray]:
    """The crystal, the fields of ``Sliding`` for shifts of which the first is zero, and openings (n,) in Å."""
    check_systems(model.potential, [system])
    crystal = layered(system, settings.interface, settings.bond_factor)
    systems = [crystal.slipped(shift) for shift in fractions @ crystal.vectors]
    options: dict[str, Any] = {
        "cell": "normal" if settings.relaxed else "none",
        "free": np.tile([0.0, 0.0, 1.0], (system.n_atoms, 1)),
        "fmax": settings.fmax,
        "max_steps": settings.max_steps if settings.relaxed else 1,
        "head": settings.head,
        "dtype": settings.dtype,
    }
    rigid, relaxed, height, converged, spec = [], [], [], [], None
    for part, n in in_parts(systems, BATCH):
        found = relax(model, part, spec=spec, **options)
        spec = found.spec
        rigid += found.initial_energies.tolist()[:n]
        relaxed += found.energies.tolist()[:n]
        height += [float(one.cell[2, 2]) for one in found.systems][:n]
        converged += found.converged.tolist()[:n]
        if on_structures is not None:
            on_structures(len(rigid), len(systems))
    scale = _MEV / crystal.area
    nothing = np.full(len(systems), np.nan)
    energies = {
        "rigid_meV_per_A2": scale * (np.array(rigid) - rigid[0]),
        "relaxed_meV_per_A2": scale * (np.array(relaxed) - relaxed[0]) if settings.relaxed else nothing,
        "converged": all(converged) or not settings.relaxed,
        "n_layers": crystal.n_layers,
        "gap_A": float(crystal.gaps[-1]),
    }
    return crystal, energies, np.array(height) - height[0] if settings.relaxed else nothing
