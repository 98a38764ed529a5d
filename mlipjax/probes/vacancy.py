"""Formation energy of vacancies, unrelaxed and relaxed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from mlipjax.elements import listed, symbols
from mlipjax.lattice import shortest_period
from mlipjax.probes.evaluator import Evaluation, Evaluator
from mlipjax.probes.result import ProbeResult
from mlipjax.probes.supercells import force_range
from mlipjax.report import probe_figures
from mlipjax.system import System

Relax = Callable[[Sequence[System]], Sequence[System]]
"""Structures in, their nearest local minima (fixed cells) out."""


@dataclasses.dataclass(frozen=True)
class Vacancies(ProbeResult):
    """Energies to take one atom out of a perfect crystal and put it into its reservoir.

    Attributes:
        sites: indices of the atoms taken out.
        symbols: their elements.
        unrelaxed_eV: (m,) with all other atoms in their places.
        relaxed_eV: (m,) after relaxation; NaN if none was asked for.
        largest_force: (m,) eV/Å left after the relaxation; NaN likewise.
        n_atoms: of the perfect supercell.
        image_distance_A: of a vacancy from its nearest image.
        force_range_A: distance at which forces of this potential end; NaN where it does not say.
    """

    sites: tuple[int, ...]
    symbols: tuple[str, ...]
    unrelaxed_eV: np.ndarray
    relaxed_eV: np.ndarray
    largest_force: np.ndarray
    n_atoms: int
    image_distance_A: float
    force_range_A: float

    @property
    def verdict(self) -> str:
        """Formation energy of each vacancy, and whether it meets its own image."""
        parts = []
        for symbol, frozen, free in zip(self.symbols, self.unrelaxed_eV, self.relaxed_eV, strict=True):
            energy = f"{free:.3f} eV (unrelaxed {frozen:.3f})" if np.isfinite(free) else f"{frozen:.3f} eV unrelaxed"
            parts.append(f"V_{symbol} {energy}{' NEGATIVE: the crystal is not stable' if frozen < 0 else ''}")
        size = f"{self.n_atoms} atoms, {self.image_distance_A:.1f} Å between images"
        verdict = f"vacancy formation in {size}: {', '.join(parts)}"
        if self.image_distance_A <= self.force_range_A * (1.0 + 1e-9):
            verdict += (
                f"; WARNING: the cell is too small, a vacancy feels its own image within the {self.force_range_A:g} Å "
                "that forces reach: repeat the cell"
            )
        return verdict

    def figure(self) -> Figure:
        """Bars, unrelaxed and relaxed."""
        names = [f"{symbol} {site}" for symbol, site in zip(self.symbols, self.sites, strict=True)]
        return probe_figures.vacancies(names, self.unrelaxed_eV, self.relaxed_eV)


def vacancy_formation(
    evaluate: Evaluator,
    system: System,
    sites: Sequence[int] = (0,),
    *,
    reservoirs: Mapping[int, float] | None = None,
    relax: Relax | None = None,
    converged: float = 0.02,
    rattle: float = 0.05,
) -> Vacancies:
    """Formation energies ``E(N-1) + mu - E(N)`` at constant volume; all vacancies in one batch.

    Args:
        evaluate: the potential.
        system: a perfect supercell, relaxed, large enough that a vacancy does not meet its image.
        sites: atoms to take out, one at a time.
        reservoirs: chemical potential in eV by atomic number; may be left out for an element, whose reservoir is the
            crystal itself.
        relax: relaxes ions at fixed cell; ``None`` for unrelaxed energies only.
        converged: eV/Å, largest force that a relaxed vacancy may keep.
        rattle: Å, random displacement (standard deviation) before relaxing: symmetry may hold a vacancy on a saddle
            point with no force on any atom. What is found is the nearest minimum, not always the lowest.

    Raises:
        ValueError: for a site that does not exist, a compound without ``reservoirs``, or a relaxation that did not
            converge: its energy would be an upper bound only.
    """
    numbers = np.asarray(system.atomic_numbers)
    wrong = [site for site in sites if not 0 <= site < len(numbers)]
    if wrong or not sites:
        raise ValueError(f"found sites {list(sites)}; expected indices of the {len(numbers)} atoms.")
    if len(numbers) == 1:
        raise ValueError(
            "without its only atom nothing is left of this cell; repeat it, so that vacancies are far apart."
        )
    kinds = np.unique(numbers)
    if reservoirs is None and len(kinds) > 1:
        names = listed(kinds)
        raise ValueError(
            f"in a compound ({names}) what a removed atom goes to is a choice; give the energy that an atom of its "
            "element has there (reservoirs)."
        )
    defects = [_without(system, site) for site in sites]
    perfect, *frozen = evaluate([system, *defects])
    mu = {int(kinds[0]): perfect.energy / len(numbers)} if reservoirs is None else reservoirs
    missing = {int(numbers[site]) for site in sites} - set(mu)
    if missing:
        raise ValueError(f"no reservoir given for {listed(sorted(missing))}.")

    def formation(results: Sequence[Evaluation]) -> np.ndarray:
        pairs = zip(results, sites, strict=True)
        return np.array([result.energy + mu[int(numbers[site])] - perfect.energy for result, site in pairs])

    relaxed = force = np.full(len(sites), np.nan)
    if relax is not None:
        rng = np.random.default_rng(0)
        moves = [rattle * rng.normal(size=defect.positions.shape) for defect in defects]
        shaken = [dataclasses.replace(d, positions=d.positions + move) for d, move in zip(defects, moves, strict=True)]
        results = evaluate(relax(shaken))
        force = np.array([np.linalg.norm(result.forces, axis=1).max() for result in results])
        if force.max() > converged:
            raise ValueError(
                f"the relaxation of vacancies left forces up to {force.max():.3g} eV/Å (limit {converged}); allow it "
                "more steps."
            )
        relaxed = formation(results)
    return Vacancies(
        sites=tuple(int(site) for site in sites),
        symbols=tuple(symbols(numbers[site] for site in sites)),
        unrelaxed_eV=formation(frozen),
        relaxed_eV=relaxed,
        largest_force=force,
        n_atoms=len(numbers),
        image_distance_A=shortest_period(system.cell, system.pbc),
        force_range_A=np.nan if (reach := force_range(evaluate)) is None else reach,
    )


def _without(system: System, site: int) -> System:
    keep = np.arange(system.n_atoms) != site
    return System(system.positions[keep], np.asarray(system.atomic_numbers)[keep], system.cell, system.pbc)
