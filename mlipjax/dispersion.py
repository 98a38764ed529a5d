"""D3 dispersion with the damping of Becke and Johnson, from the reference implementation (package ``dftd3``).

References: Grimme, Antony, Ehrlich, Krieg, J. Chem. Phys. 132, 154104 (2010); Grimme, Ehrlich, Goerigk, J. Comput.
Chem. 32, 1456 (2011). Pairs within 60 Bohr, coordination numbers within 40, no three-body term: the defaults of DFT
codes. Compiled programs call it on the host: its energy is a sum over more than a thousand images of every atom, in
compiled Fortran, beside which the call costs nothing, and coefficients and derivatives stay those of its authors.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from mlipjax.data import Dataset
from mlipjax.graph import GraphBatch
from mlipjax.system import Labels, System
from mlipjax.typing import Array

SPEC_HELP = "d3bj:FUNCTIONAL"
"""Accepted form, for help texts."""

P = TypeVar("P", bound=Any)

_FACTS = ("positions", "cells", "atomic_numbers", "graph_index", "atom_mask")


class Contribution(NamedTuple):
    """Dispersion of one structure.

    Attributes:
        energy: () eV.
        forces: (n, 3) eV/Å.
        virial: (3, 3) eV, derivative of the energy with respect to strain: stress times volume.
    """

    energy: np.ndarray
    forces: np.ndarray
    virial: np.ndarray


@dataclasses.dataclass(frozen=True)
class D3BJ:
    """D3(BJ) of a functional.

    Attributes:
        functional: whose parameters are taken: PBE, PBEsol, revPBE, r2SCAN, B3LYP, ...
        pbc: periodic directions of the structures in a batch, which does not know them; ``None`` for all three where
            there is a volume. ``of`` and ``energies`` know them from the structure.

    Raises:
        ValueError: if the package is not installed, or knows no such functional.
    """

    functional: str
    pbc: tuple[bool, bool, bool] | None = None

    def __post_init__(self) -> None:
        self._damping()

    @property
    def name(self) -> str:
        """Name, as ``parse_dispersion`` takes it."""
        return f"d3bj:{self.functional}"

    def along(self, pbc: Any) -> D3BJ:
        """The same for batches of structures that are periodic in these directions."""
        first, second, third = (bool(flag) for flag in pbc)
        return dataclasses.replace(self, pbc=(first, second, third))

    def of(self, system: System) -> Contribution:
        """Energy, forces and virial of one structure, float64."""
        from ase.units import Bohr, Hartree

        found = self._model(system).get_dispersion(self._damping(), grad=True)
        energy, gradient, virial = (np.asarray(found[name]) for name in ("energy", "gradient", "virial"))
        return Contribution(energy * Hartree, gradient * (-Hartree / Bohr), virial * Hartree)

    def energies(self, system: System) -> np.ndarray:
        """Shares of the atoms in the energy (n,), eV: half of every pair's."""
        from ase.units import Hartree

        found = self._model(system).get_pairwise_dispersion(self._damping())
        return found["additive pairwise energy"].sum(axis=1) * Hartree

    def off(self, system: System, labels: Labels) -> Labels:
        """Labels of a structure without the dispersion that they contain; what is missing stays so."""
        found = self.of(system)
        parts = {"energy": found.energy, "forces": found.forces, "stress": found.virial / (system.volume or 1.0)}
        changes = {
            name: np.asarray(getattr(labels, name), np.float64) - part
            for name, part in parts.items()
            if getattr(labels, f"{name}_weight") > 0.0
        }
        return dataclasses.replace(labels, **changes)

    def off_dataset(self, dataset: Dataset) -> Dataset:
        """The same structures with labels without the dispersion that they contain."""
        pairs = zip(dataset.systems, dataset.labels, strict=True)
        return dataclasses.replace(dataset, labels=tuple(self.off(system, labels) for system, labels in pairs))

    def of_batch(self, graph: GraphBatch) -> tuple[Contribution, Array]:
        """Contributions of the G structures of a batch, padding included, and shares of its atoms (N,).

        Works under ``jit``; what of both nobody uses is not computed. There are no derivatives of it.
        """
        dtype = graph.positions.dtype
        (n, _), g = graph.positions.shape, graph.cells.shape[0]

        def shape(*sizes: int) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(sizes, dtype)

        facts = [getattr(graph, name) for name in _FACTS]
        whole = Contribution(shape(g), shape(n, 3), shape(g, 3, 3))  # pyright: ignore[reportArgumentType]
        found = jax.pure_callback(self._contributions, whole, *facts, vmap_method="sequential")
        return found, jax.pure_callback(self._shares, shape(n), *facts, vmap_method="sequential")

    def added(self, prediction: P, graph: GraphBatch, per_volume: Array) -> P:
        """A ``Prediction`` of a batch with its dispersion; ``per_volume`` (G,) is 0 where there is no volume."""
        more, shares = self.of_batch(graph)
        return prediction.replace(
            energy=prediction.energy + more.energy,
            forces=prediction.forces + more.forces,
            stress=prediction.stress + more.virial * per_volume[:, None, None],
            node_energy=prediction.node_energy + shares,
        )

    def _contributions(self, *facts: Any) -> Contribution:
        positions, cells = np.asarray(facts[0]), np.asarray(facts[1])
        total = Contribution(np.zeros(len(cells)), np.zeros(positions.shape), np.zeros(cells.shape))
        for g, atoms, system in self._structures(*facts):
            found = self.of(system)
            total.energy[g], total.forces[atoms], total.virial[g] = found
        return Contribution(*(part.astype(positions.dtype) for part in total))

    def _shares(self, *facts: Any) -> np.ndarray:
        shares = np.zeros(len(facts[0]))
        for _, atoms, system in self._structures(*facts):
            shares[atoms] = self.energies(system)
        return shares.astype(np.asarray(facts[0]).dtype)

    def _structures(self, *facts: Any) -> Any:
        """Structures of a batch, with their numbers and the rows of their atoms."""
        positions, cells, numbers, owner, real = map(np.asarray, facts)
        for g, cell in enumerate(cells):
            if len(atoms := np.flatnonzero(real & (owner == g))):
                pbc = (abs(np.linalg.det(cell)) > 0.0,) * 3 if self.pbc is None else self.pbc
                yield g, atoms, System(positions[atoms], numbers[atoms], cell, pbc)

    def _damping(self) -> Any:
        return _package().RationalDampingParam(method=self.functional)

    def _model(self, system: System) -> Any:
        from ase.units import Bohr

        numbers, positions = np.asarray(system.atomic_numbers), np.asarray(system.positions, np.float64)
        if not any(system.pbc):
            return _package().DispersionModel(numbers, positions / Bohr)
        positions, cell = _inside(positions, system)
        return _package().DispersionModel(numbers, positions / Bohr, cell / Bohr, np.asarray(system.pbc, bool))


def add_dispersion(results: dict[str, Any], dispersion: D3BJ, system: System) -> None:
    """Add dispersion to ASE's results of a structure: energies, forces, and stress where there is one."""
    from ase.stress import full_3x3_to_voigt_6_stress

    found = dispersion.of(system)
    more = {"energy": float(found.energy), "free_energy": float(found.energy), "forces": found.forces}
    if "energies" in results:
        more["energies"] = dispersion.energies(system)
    if "stress" in results:
        more["stress"] = full_3x3_to_voigt_6_stress(found.virial) / system.volume
    results.update({name: results[name] + part for name, part in more.items() if name in results})


def parse_dispersion(spec: str) -> D3BJ:
    """Read ``d3bj:FUNCTIONAL``.

    Raises:
        ValueError: if it is something else; and as ``D3BJ``.
    """
    kind, _, functional = spec.partition(":")
    if kind.lower() != "d3bj" or not functional:
        raise ValueError(f"dispersion is {SPEC_HELP}, such as d3bj:PBE; found {spec!r}.")
    try:
        return D3BJ(functional)
    except RuntimeError as error:
        raise ValueError(f"dftd3 has no D3(BJ) parameters of {functional!r}: {error}.") from None


def _inside(positions: np.ndarray, system: System) -> tuple[np.ndarray, np.ndarray]:
    """Positions and cell with all atoms between the faces along directions without periodicity.

    ``dftd3`` 1.7.0 brings atoms back into the cell along these too, which tears a slab apart whose atoms stick out.
    """
    from ase.geometry import complete_cell

    periodic = np.asarray(system.pbc, bool)
    cell = complete_cell(np.where(periodic[:, None], np.asarray(system.cell, np.float64), 0.0))  # unit vectors else
    along = positions @ np.linalg.inv(cell)
    first = np.where(periodic, 0.0, along.min(axis=0) - 1.0)
    length = np.where(periodic, 1.0, np.ptp(along, axis=0) + 2.0)
    return positions - first @ cell, cell * length[:, None]


def _package() -> Any:
    try:
        from dftd3 import interface
    except ImportError as error:
        raise ValueError("dispersion needs the package dftd3: pip install mlipjax[dispersion].") from error
    return interface
