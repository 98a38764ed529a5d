"""What ``experiments.migration`` asks of every model: barriers, profiles, sliding, lattice, elasticity."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.migration.data import MigrationPath
from mlipjax.graph import VerletSpec
from mlipjax.potential import Potential
from mlipjax.probes import SlidingSettings, neb, slide
from mlipjax.probes.elastic import elastic_constants
from mlipjax.probes.evaluator import Evaluation
from mlipjax.probes.sliding import BATCH
from mlipjax.relaxation import ProbeDiverged, relax
from mlipjax.relaxation.run import in_parts
from mlipjax.system import System
from mlipjax.typing import Params

DTYPE = "float32"


@dataclasses.dataclass(frozen=True)
class Prober:
    """Probes of all models of one architecture: they share compiled programs, one for each kind of cell.

    Attributes:
        potential: of the universal model; fine-tuned models have its network, and energy zeros cancel.
    """

    potential: Potential

    def spec(self, systems: Sequence[System]) -> VerletSpec:
        """Tables with room for these structures, so that no model needs a program of its own."""
        return VerletSpec.for_systems(systems, self.potential.cutoff)

    def path(
        self, params: Params, path: MigrationPath, n_images: int, fmax: float, max_steps: int, band: bool = True
    ) -> dict[str, Any]:
        """Energies of all images as they are, and the model's own barrier if its ``band`` is asked for."""
        spec = self.spec(path.images)
        # in the slots of the band's program
        found = evaluated(self.potential, params, path.images, n_images - 2, spec)
        row = path_row(np.array([one.energy for one in found]), np.array([one.forces for one in found]))
        if not band:
            return row
        options: dict[str, Any] = {"fmax": fmax, "max_steps": max_steps, "dtype": DTYPE, "spec": spec}
        try:
            own = neb(self.potential, params, path.band(n_images), **options)
        except ProbeDiverged as error:
            return {**row, "failed": str(error)}
        return {**row, "own": {**own.as_dict(), "barrier_eV": own.barrier_eV}}

    def sliding(self, params: Params, crystal: System, config: Any) -> dict[str, Any]:
        """Equilibrium lattice, elastic constants, and the energy of sliding one quintuple layer over the next."""
        spec = self.spec([crystal])
        limits: dict[str, Any] = {"fmax": config.lattice_fmax, "max_steps": config.crystal_steps, "dtype": DTYPE}
        try:
            # as many copies as the slides evaluate at once
            relaxed = relax(self.potential, params, [crystal] * BATCH, cell="full", spec=spec, **limits)
            found, profiles = relaxed.systems[0], {}
            for name, vector in (("a", (1.0, 0.0)), ("a + 2b", (1.0, 2.0))):
                profile = slide(
                    self.potential,
                    params,
                    found,
                    vector=vector,
                    n_points=config.sliding_points,
                    settings=SlidingSettings(**limits),
                    spec=relaxed.spec,
                )
                profiles[name] = profile.as_dict()
        except (ProbeDiverged, ValueError) as error:
            return {"failed": str(error)}
        cell = np.asarray(found.cell, np.float64)
        return {
            "a_A": float(np.linalg.norm(cell[0])),
            "c_A": float(np.linalg.norm(cell[2])),
            "converged": bool(relaxed.converged[0]),
            "profiles": profiles,
            "elastic": self._elastic(params, found, relaxed.spec),
        }

    def _elastic(self, params: Params, crystal: System, spec: VerletSpec) -> dict[str, Any]:
        def evaluate(systems: Sequence[System]) -> list[Evaluation]:
            return evaluated(self.potential, params, systems, BATCH, spec, stress=True)

        try:
            return elastic_constants(evaluate, crystal, relax_ions=False).as_dict()
        except ValueError as error:
            return {"failed": str(error)}


def path_row(levels: np.ndarray, forces: Any) -> dict[str, Any]:
    """What is reported of energies (P,) in eV and forces (P, N, 3) in eV/Å of images as they are."""
    return {
        "profile_eV": levels - levels[0],
        "fixed_path_barrier_eV": float(levels.max() - levels[0]),
        "forces_eV_per_A": forces,
    }


def evaluated(
    potential: Potential, params: Params, systems: Sequence[System], size: int, spec: VerletSpec, stress: bool = False
) -> list[Evaluation]:
    """Energies, forces and (of crystals) stresses of structures as they are, in the program that relaxes ``size``."""
    results = []
    for part, n in in_parts(systems, size):
        found = relax(potential, params, part, max_steps=1, dtype=DTYPE, stress=stress, spec=spec).final
        for energy, forces, virial, system in list(zip(found.energies, found.forces, found.virials, part, strict=True))[
            :n
        ]:
            tension = virial / abs(np.linalg.det(np.asarray(system.cell))) if stress else None
            results.append(Evaluation(float(energy), forces, tension))
    return results
