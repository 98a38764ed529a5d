"""What ``experiments.migration`` asks of every model: barriers, profiles, sliding, lattice, elasticity."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from experiments.migration.data import MigrationPath
from mlipjax.potential import Model, Potential
from mlipjax.probes import ProbeDiverged, SlidingSettings, neb, slide
from mlipjax.probes.elastic import elastic_constants
from mlipjax.probes.evaluator import Evaluation
from mlipjax.probes.relax import Engine, freedom, plain_task, strain_basis
from mlipjax.probes.relax_batch import BatchSpec
from mlipjax.probes.sliding import BATCH
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

    def engine(self, params: Params, systems: Sequence[System]) -> Engine:
        """An engine whose tables begin with room for these structures, whatever was computed before."""
        engine = Engine(self.potential, params, 0, DTYPE)
        engine.spec = BatchSpec.for_systems(systems, self.potential.cutoff, engine.skin)
        return engine

    def path(
        self, params: Params, path: MigrationPath, n_images: int, fmax: float, max_steps: int, band: bool = True
    ) -> dict[str, Any]:
        """Energies of all images as they are, and the model's own barrier if its ``band`` is asked for."""
        engine = self.engine(params, path.images)
        levels, forces = self._levels(engine, path.images, n_images - 2)
        row = path_row(levels, forces)
        if not band:
            return row
        try:
            own = neb(
                self.potential,
                params,
                path.band(n_images),
                fmax=fmax,
                max_steps=max_steps,
                dtype=DTYPE,
                engine=engine,
            )
        except ProbeDiverged as error:
            return {**row, "failed": str(error)}
        return {**row, "own": {**own.as_dict(), "barrier_eV": own.barrier_eV}}

    def sliding(self, params: Params, crystal: System, config: Any) -> dict[str, Any]:
        """Equilibrium lattice, elastic constants, and the energy of sliding one quintuple layer over the next."""
        engine = self.engine(params, [crystal])
        basis = strain_basis("full", [crystal])
        task = plain_task([crystal] * BATCH, freedom(None, crystal.n_atoms), basis, config.lattice_fmax, DTYPE)
        still = np.zeros((BATCH, 1, 1))
        still[0] = 1.0
        task = dataclasses.replace(task, free=task.free * still.astype(DTYPE))
        try:
            search = engine.run([crystal] * BATCH, task, config.crystal_steps)
            relaxed = engine.relaxed([crystal] * BATCH, task, search)
            found = relaxed.systems[0]
            settings = SlidingSettings(fmax=config.lattice_fmax, max_steps=config.crystal_steps, dtype=DTYPE)
            profiles = {}
            for name, vector in (("a", (1.0, 0.0)), ("a + 2b", (1.0, 2.0))):
                profile = slide(
                    Model(self.potential, params),
                    found,
                    vector=vector,
                    n_points=config.sliding_points,
                    settings=settings,
                    engine=engine,
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
            "elastic": self._elastic(engine, found),
        }

    def _elastic(self, engine: Engine, crystal: System) -> dict[str, Any]:
        def evaluate(systems: Sequence[System]) -> list[Evaluation]:
            return evaluate_batched(engine, systems)

        try:
            return elastic_constants(evaluate, crystal, relax_ions=False).as_dict()
        except ValueError as error:
            return {"failed": str(error)}

    def _levels(self, engine: Engine, images: Sequence[System], slots: int) -> tuple[np.ndarray, np.ndarray]:
        """Energies (P,) and forces (P, N, 3) of images as they are, in the slots of the band's program."""
        energies, forces = [], []
        for begin in range(0, len(images), slots):
            part = list(images[begin : begin + slots])
            filled = part + [part[-1]] * (slots - len(part))
            task = plain_task(filled, freedom(None, filled[0].n_atoms), np.zeros((0, 3, 3)), np.inf, DTYPE)
            search = engine.run(filled, task, 1)
            energies += engine.energies(filled, search).tolist()[: len(part)]
            forces += list(np.asarray(search.forces, np.float64)[: len(part)])
        return np.array(energies), np.array(forces)


def path_row(levels: np.ndarray, forces: Any) -> dict[str, Any]:
    """What is reported of energies (P,) in eV and forces (P, N, 3) in eV/Å of images as they are."""
    return {
        "profile_eV": levels - levels[0],
        "fixed_path_barrier_eV": float(levels.max() - levels[0]),
        "forces_eV_per_A": forces,
    }


def evaluate_batched(engine: Engine, systems: Sequence[System]) -> list[Evaluation]:
    """Energies, forces and stresses of crystals, in the program that relaxes their cells."""
    results = []
    for begin in range(0, len(systems), BATCH):
        part = list(systems[begin : begin + BATCH])
        filled = part + [part[-1]] * (BATCH - len(part))
        free = freedom(None, filled[0].n_atoms)
        task = plain_task(filled, free, strain_basis("full", filled), np.inf, DTYPE)
        search = engine.run(filled, task, 1)
        energies = engine.energies(filled, search)
        forces, virial = jax.device_get((search.forces, search.virial))
        for row, system in enumerate(part):
            stress = np.asarray(virial[row], np.float64) / abs(np.linalg.det(np.asarray(system.cell)))
            results.append(Evaluation(float(energies[row]), np.asarray(forces[row], np.float64), stress))
    return results
