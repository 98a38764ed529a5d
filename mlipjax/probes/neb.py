"""Minimum-energy paths: nudged elastic band with a climbing image, all images in one batch and one compiled loop.

A barrier is two different numbers. The *fixed-path* barrier is the highest energy the model gives the images as they
are, above the first one. The *self-consistent* barrier is that of the model's own path, after it has relaxed both ends
and the band between them.

The highest image climbs once the forces are small, before the band is converged: on bent paths with few images a plain
band may swing for ever where one with an image at the saddle point settles. Where the climb leads nowhere instead
(``relaxation.band`` tells how that is noticed), the band is what it would be had no image climbed, and says so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import jax
import numpy as np
from matplotlib.figure import Figure

from mlipjax.defaults import SPRING
from mlipjax.elements import symbols
from mlipjax.graph import VerletSpec
from mlipjax.notices import notice
from mlipjax.potential import Model
from mlipjax.probes.result import ProbeResult
from mlipjax.relaxation.band import Band, Climb, between_images, start, step
from mlipjax.relaxation.cell import coordinates, freedom
from mlipjax.relaxation.path import arc_length, exchanged_atoms, idpp, resampled, unwrapped
from mlipjax.relaxation.run import Relaxed, relax
from mlipjax.relaxation.search import OnStep, Step, Surface, check_systems, search
from mlipjax.report import probes as figures
from mlipjax.system import System

_ONE_PLACE = 0.1  # Å, length of a band between two copies of one structure, relaxed each for itself
_CLIMB_AT = 10.0  # the highest image climbs once no force exceeds this many times fmax


@dataclasses.dataclass(frozen=True)
class NEBResult(ProbeResult):
    """A band after relaxation, and the one it started from.

    Attributes:
        energies_eV: (P,) total energies of all images, ends included.
        fixed_path_energies_eV: (P,) of the images as given.
        distance_A: (P,) arc length along the band.
        slopes_eV_per_A: (P,) derivative of the energy along the band (0 at the ends).
        image_fmax_eV_per_A: (P,) largest force on an atom; perpendicular to the band, save for the ends and the
            climbing image.
        image_converged: (P,) whether that is below ``fmax``.
        forward_barrier_eV, reverse_barrier_eV: highest image above the first, above the last.
        interpolated_barrier_eV: highest point above the first image of the cubics through energies and slopes; where no
            image climbed, the better estimate of the saddle point, which then lies between images.
        fixed_path_barrier_eV: highest of the images as given above the first one.
        reaction_energy_eV: last image minus first.
        converged: whether all images are.
        climbed: whether an image climbed, so that the highest one is a saddle point.
        ran_away: whether an image began to climb, went astray and was given up: the band is then the one without a
            climbing image.
        ends_relaxed: whether the ends were relaxed.
        steps: evaluations of the band, those of a climb that was given up included.
        fmax_eV_per_A: what was asked for.
        positions: (P, N, 3) Å of the images, without jumps.
        system: the first image, for elements and cell.
    """

    energies_eV: np.ndarray
    fixed_path_energies_eV: np.ndarray
    distance_A: np.ndarray
    slopes_eV_per_A: np.ndarray
    image_fmax_eV_per_A: np.ndarray
    image_converged: np.ndarray
    forward_barrier_eV: float
    reverse_barrier_eV: float
    interpolated_barrier_eV: float
    fixed_path_barrier_eV: float
    reaction_energy_eV: float
    converged: bool
    climbed: bool
    ran_away: bool
    ends_relaxed: bool
    steps: int
    fmax_eV_per_A: float
    positions: np.ndarray
    system: System

    not_in_json: ClassVar[tuple[str, ...]] = ("positions", "system")

    @property
    def highest(self) -> int:
        """Index of the highest image."""
        return int(np.argmax(self.energies_eV))

    @property
    def images(self) -> list[System]:
        """The images as structures."""
        return [dataclasses.replace(self.system, positions=positions) for positions in self.positions]

    @property
    def barrier_eV(self) -> float:
        """Best estimate of the forward barrier: the image that climbed, else the top of the cubics between images."""
        return self.forward_barrier_eV if self.climbed else self.interpolated_barrier_eV

    @property
    def verdict(self) -> str:
        """Barriers, and what speaks against them."""
        forward, reverse = self.barrier_eV, self.barrier_eV - self.reaction_energy_eV
        remarks = [
            f"barrier {forward:.3f} eV forward, {reverse:.3f} eV reverse "
            f"(on the path as given {self.fixed_path_barrier_eV:.3f} eV)"
        ]
        if not self.converged:
            left = self.image_fmax_eV_per_A.max()
            remarks.append(
                f"NOT converged: {left:.3f} eV/Å left after {self.steps} steps, {self.fmax_eV_per_A:g} wanted"
            )
        if self.distance_A[-1] < _ONE_PLACE:
            relaxed = " once they are relaxed" if self.ends_relaxed else ""
            remarks.append(
                f"WARNING: both ends are one structure{relaxed}, {self.distance_A[-1]:.2f} Å apart: this is no path"
            )
        elif self.highest in (0, len(self.energies_eV) - 1):
            remarks.append("no barrier between the ends: the highest image is an end")
        elif not self.climbed:
            remarks.append(
                f"interpolated, the highest image is at {self.forward_barrier_eV:.3f} eV: {self._why_no_image_climbed}"
            )
        if self._valley and not self.ran_away:
            remarks.append(f"image {self._valley} is lower than both ends: split the path there")
        return "; ".join(remarks)

    @property
    def _valley(self) -> int | None:
        """Index of the lowest inner image, if it is clearly lower than both ends."""
        lowest = 1 + int(self.energies_eV[1:-1].argmin())
        return lowest if self.energies_eV[lowest] < min(self.energies_eV[0], self.energies_eV[-1]) - 0.02 else None

    @property
    def _why_no_image_climbed(self) -> str:
        if not self.ran_away:
            return "no image climbed"
        split = f" or a split at image {self._valley}, lower than both ends," if self._valley else ""
        return f"the climbing image ran away, more images{split} are needed to find the saddle point"

    def figure(self) -> Figure:
        """Energy along the path, as given and relaxed."""
        return figures.energy_path(
            self.distance_A,
            self.energies_eV - self.energies_eV[0],
            self.slopes_eV_per_A,
            self.fixed_path_energies_eV - self.fixed_path_energies_eV[0],
        )


def initial_path(
    images: Sequence[System],
    n_images: int | None = None,
    interpolation: str = "idpp",
    free: np.ndarray | None = None,
) -> np.ndarray:
    """Positions (P, N, 3) in Å of a band through the given images, along shortest periodic images.

    Args:
        images: both ends, or a whole path.
        n_images: number of images, ends included; as many as given by default, 7 for two ends.
        interpolation: "idpp" or "linear", between two ends; a given path is followed evenly instead.
        free: (N,) or (N, 3) true where an atom or coordinate may leave the straight path.

    Raises:
        ValueError: if the images do not fit each other, or there would be no inner image.
    """
    path = unwrapped(images)
    if len(images) == 2:
        _say_exchanges(path, images[0])
    wanted = n_images or (7 if len(images) == 2 else len(images))
    if wanted < 3:
        raise ValueError(f"a band needs at least one image between its ends, found {wanted} images in all.")
    if interpolation not in ("idpp", "linear"):
        raise ValueError(f"interpolation must be 'idpp' or 'linear', found {interpolation!r}.")
    if wanted == len(path) and len(images) > 2:
        return path
    path_of_all = resampled(path, wanted)
    if len(images) > 2 or interpolation == "linear":
        return path_of_all
    return idpp(path_of_all, images[0], freedom(free, 1, images[0].n_atoms)[0])


def _say_exchanges(path: np.ndarray, system: System) -> None:
    """Notice where a path between two ends would lead atoms through each other."""
    pairs = exchanged_atoms(path, system)
    if not pairs:
        return
    names = symbols(np.asarray(system.atomic_numbers))
    told = ", ".join(f"{names[i]} {i} to the place of {names[j]} {j}" for i, j in pairs[:3])
    more = f" and {len(pairs) - 3} more" if len(pairs) > 3 else ""
    notice(
        f"atoms change places between the two ends: {told}{more}. If both files mean the same atoms, list them in the "
        "same order; if they do exchange, give images of the way they take.",
        depth=2,
    )


def neb(
    model: Model,
    images: Sequence[System],
    *,
    n_images: int | None = None,
    interpolation: str = "idpp",
    fmax: float = 0.05,
    climb: bool = True,
    relax_ends: bool = True,
    spring: float = SPRING,
    free: np.ndarray | None = None,
    max_steps: int = 500,
    head: int = 0,
    dtype: str = "float32",
    on_step: OnStep | None = None,
    spec: VerletSpec | None = None,
) -> NEBResult:
    """Relax a band of images to the minimum-energy path of a potential.

    Args:
        model: potential and parameters.
        images: both ends, or a whole path; same atoms in the same order, one cell, any periodicity.
        n_images: images wanted, ends included; see ``initial_path``.
        interpolation: "idpp" or "linear", where there are only two ends.
        fmax: eV/Å, at which every image (and end) is converged.
        climb: whether the highest image climbs to the saddle point.
        relax_ends: whether the ends are relaxed first; the images between follow them.
        spring: eV/Å^2, between images along the path.
        free: (N,) or (N, 3) true where an atom or coordinate may move; all may by default.
        max_steps: evaluations at most, of the ends and of the band each; those of a climb that is given up do not
            count, so that the band comes back as if no image had climbed.
        head: index of the energy head.
        dtype: "float32" (energy differences are formed per atom, which holds 0.1 meV) or "float64".
        on_step: for progress bars.
        spec: sizes of the tables to begin with, so that several bands share compiled programs; by default those of the
            path.

    Raises:
        ValueError: if the images do not fit each other or the potential.
        ProbeDiverged: if energies are not finite.
    """
    given = check_systems(model.potential, images)
    path = initial_path(given, n_images, interpolation, free)

    def structures(positions: np.ndarray) -> list[System]:
        return [dataclasses.replace(given[0], positions=each) for each in positions]

    spec = spec or VerletSpec.for_systems(structures(path), model.potential.cutoff)
    options: dict[str, Any] = {"free": free, "head": head, "dtype": dtype}

    def freely(systems: list[System], max_steps: int, on_step: OnStep | None = None) -> Relaxed:
        nonlocal spec
        found = relax(model, systems, fmax=fmax, max_steps=max_steps, spec=spec, on_step=on_step, **options)
        spec = found.spec
        return found

    slots = len(path) - 2
    inner = freely(structures(path[1:-1]), 1).energies
    # in the slots of the inner images, so that one program serves: the last end as often as there are slots left
    ends = freely(structures(path[[0] + [-1] * max(slots - 1, 1)]), max_steps if relax_ends else 1, on_step)
    levels = np.concatenate([ends.initial_energies[:1], inner, ends.initial_energies[1:2]])
    path = _following(path, ends.systems) if relax_ends else path
    with jax.enable_x64(dtype == "float64"):
        images = structures(path[1:-1])
        surface = Surface.of(model, images, head=head, dtype=dtype, spec=spec)
        where = coordinates(images, dtype, free=free)
        climb_below = _CLIMB_AT * fmax if climb else 0.0
        between: Any = path[[0, -1]]
        energies: Any = ends.final.node_energies[:2]
        band = Band(where, between, energies, spring, fmax, climb_below, max_steps)
        *_, last = search(surface, where, partial(step, band), start(band, path[1:-1]), max_steps, on_step)
    return _result(path, given[0], last, levels, ends, fmax, relax_ends)


def _following(path: np.ndarray, ends: Sequence[System]) -> np.ndarray:
    """The path with relaxed ends; images in between follow by their share of the way."""
    length = arc_length(path)
    part = (length / max(length[-1], 1e-12))[:, None, None]
    return path + (1.0 - part) * (ends[0].positions - path[0]) + part * (ends[1].positions - path[-1])


def _result(
    path: np.ndarray, system: System, last: Step, given: np.ndarray, ends: Relaxed, fmax: float, relaxed: bool
) -> NEBResult:
    node_energy = np.concatenate([ends.final.node_energies[:1], last.found.node_energy, ends.final.node_energies[1:2]])
    energies = last.surface.energies(node_energy)
    positions = np.concatenate([path[:1], np.asarray(last.found.positions, np.float64), path[-1:]])
    left = np.concatenate([ends.residual[:1], last.info.residual, ends.residual[1:2]])
    # ends that were not to be relaxed are what they are
    fine = left < fmax
    fine[[0, -1]] |= not relaxed
    slopes = np.pad(np.asarray(last.info.slope, np.float64), 1)
    distance = arc_length(positions)
    curve = between_images(energies - energies[0], slopes, np.diff(distance))
    climb: Climb = last.after.climb
    return NEBResult(
        energies_eV=energies,
        fixed_path_energies_eV=given,
        distance_A=distance,
        slopes_eV_per_A=slopes,
        image_fmax_eV_per_A=left,
        image_converged=fine,
        forward_barrier_eV=float(energies.max() - energies[0]),
        reverse_barrier_eV=float(energies.max() - energies[-1]),
        interpolated_barrier_eV=float(curve.max()),
        fixed_path_barrier_eV=float(given.max() - given[0]),
        reaction_energy_eV=float(energies[-1] - energies[0]),
        converged=bool(fine.all()),
        climbed=bool(climb.on) and 0 < int(np.argmax(energies)) < len(energies) - 1,
        ran_away=int(climb.in_vain) > 0,
        ends_relaxed=relaxed,
        steps=int(last.after.step) + int(climb.in_vain),
        fmax_eV_per_A=fmax,
        positions=positions,
        system=dataclasses.replace(system, positions=path[0]),
    )
