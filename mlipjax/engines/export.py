"""A model as a program that LAMMPS runs by itself, on many processes, without Python: lammps-jax's format.

Each process holds its own atoms and, as ghosts, all atoms within so many cutoffs of them as the model has layers: as
far as messages travel. The program sums the energies of the process's own atoms alone; forces on ghosts go back to
their owners, and LAMMPS makes the virial of them. Shapes are fixed, so capacities are part of the program.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from mlipjax.engines.lammps_input import DATA, INPUT, LammpsRun, data_text, input_text, kinds_of
from mlipjax.engines.run import prepare
from mlipjax.files import make_folder, write_atomic
from mlipjax.graph import DenseTable, graph_from_table, neighbor_table
from mlipjax.lattice import heights
from mlipjax.potential import Potential
from mlipjax.system import System
from mlipjax.typing import Params
from mlipjax.verbs.inputs import open_native

PROGRAM = "model.lammps-jax.json"

SKIN = 1.0
"""Å that LAMMPS adds to the cutoff, so that lists last for some steps."""

_HEADROOM = 1.2
"""On the numbers of atoms and neighbours of the structure: densities change."""


class Capacity(NamedTuple):
    """Rows of a program's arrays: atoms of a process with its ghosts, and neighbours of an atom within the skin."""

    max_atoms: int
    max_neighbors: int


@dataclasses.dataclass(frozen=True)
class Target:
    """Purpose of a program.

    Attributes:
        processes: of LAMMPS along the three lattice vectors; with fewer, each has more atoms than the program holds.
        platform: "cuda" or "cpu".
        head: name of the model's energy head; ``None`` for its first.
        dtype: precision of the network, and of positions and forces.
    """

    processes: tuple[int, int, int] = (1, 1, 1)
    platform: str = "cuda"
    head: str | None = None
    dtype: str = "float32"


def hops(potential: Potential) -> int:
    """Number of cutoffs over which an atom changes another's energy: one for each layer."""
    return len(potential.feature_slices)


def local_atoms(system: System, part: Sequence[int], processes: Sequence[int], shell: float) -> tuple[np.ndarray, ...]:
    """The atoms of one process: its own, then ghosts within ``shell`` of its part of the cell.

    Args:
        system: periodic where its ``pbc`` says so, atoms anywhere.
        part: which part, along the three lattice vectors.
        processes: number of parts along each.
        shell: Å.

    Returns:
        Index of each atom in the structure (m,), its position (m, 3) Å, and the number of own atoms.
    """
    cell, pbc = np.asarray(system.cell), np.asarray(system.pbc)
    wide = shell / heights(cell)  # of the shell, as a part of the lattice vectors
    fractional = np.linalg.solve(cell.T, np.asarray(system.positions).T).T
    fractional -= np.floor(fractional) * pbc
    low, high = np.array(part) / processes, (np.array(part) + 1) / processes
    low, high = np.where(pbc | (np.array(part) > 0), low, -np.inf), np.where(pbc | (high < 1), high, np.inf)
    reach = np.where(pbc, np.ceil(wide).astype(int), 0)
    images = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), -1).reshape(-1, 3)
    everywhere = (fractional[:, None] + images).reshape(-1, 3)
    here = ((everywhere >= low) & (everywhere < high)).all(axis=1)
    near = ((everywhere >= low - wide) & (everywhere < high + wide)).all(axis=1)
    order = np.concatenate([np.flatnonzero(here), np.flatnonzero(near & ~here)])
    return order // len(images), everywhere[order] @ cell, np.array(here.sum())


def capacity(system: System, potential: Potential, processes: Sequence[int]) -> Capacity:
    """Room that a program needs for a structure, with headroom.

    Args:
        system: the structure.
        potential: decides how far ghosts and neighbours are.
        processes: parts along the three lattice vectors.
    """
    shell = hops(potential) * potential.cutoff + SKIN
    parts = np.ndindex(*processes)
    atoms = max(len(local_atoms(system, part, processes, shell)[0]) for part in parts)
    neighbors = neighbor_table(system, potential.cutoff + SKIN).max_count
    return Capacity(int(np.ceil(_HEADROOM * atoms)), int(np.ceil(_HEADROOM * neighbors)) + 4)


def energy_of_lists(potential: Potential, params: Params, head: int, elements: Sequence[str]) -> Callable[..., Any]:
    """Per-atom interaction energies (m,) in eV of positions (m, 3) Å, types (m,) from 0, and LAMMPS' neighbour lists.

    Args:
        potential: the model.
        params: its parameters, in the dtype of the positions.
        head: index of the energy head.
        elements: symbols of the types.
    """
    numbers = np.array([atomic_numbers[symbol] for symbol in elements], np.int32)
    potential = potential.replace(backend="dense")

    def node_energies(positions: jax.Array, types: jax.Array, lists: Any) -> jax.Array:
        n_slots, n_rows = lists.neighbors.shape
        own = jnp.arange(n_rows, dtype=jnp.int32)[:, None]
        listed = jnp.arange(n_slots)[None, :] < lists.num_neighbors[:, None]
        neighbors = jnp.where(listed, lists.neighbors.T, own)
        # lists reach into the skin; images stand in them as atoms of their own
        distances = jnp.sum((positions[neighbors] - positions[own]) ** 2, axis=-1)
        mask = listed & (distances < potential.cutoff**2)
        shifts, cell = jnp.zeros((*neighbors.shape, 3), jnp.int32), jnp.zeros((3, 3), positions.dtype)
        # dense models read no reverse edges
        table = DenseTable(neighbors, shifts, mask, neighbors, positions, cell, jnp.zeros((), bool))
        atomic = jnp.asarray(numbers)[jnp.clip(types, 0, len(numbers) - 1)]
        graph = graph_from_table(atomic, jnp.asarray(head), table, positions, cell)
        return potential.node_energy(params, graph, positions)[0]

    return node_energies


def write_lammps_export(folder: str | Path, model: str, atoms: Atoms, target: Target | None = None) -> Capacity:
    """Write a program, and data and input of LAMMPS for it; return the capacity of the program.

    Energies are those that atoms have in the structure beyond their energies alone.

    Args:
        folder: made if absent.
        model: as ``mlipjax.load`` takes it.
        atoms: the structure; its elements, in the order in which they appear, are LAMMPS' atom types.
        target: what the program is made for.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: for a structure or model that cannot be used, or if lammps-jax
            is not installed.
        OSError: if the folder cannot be written.
    """
    try:
        from lammps_jax.export import export_model  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ValueError("programs are written by the package lammps-jax, which is not installed.") from None
    target = Target() if target is None else target
    name, atoms = prepare(model, atoms, target.head)
    kinds = kinds_of(atoms)
    data = data_text(atoms, kinds)
    opened = open_native(name, target.head)
    size = capacity(System.from_ase(atoms), opened.potential, target.processes)
    symbols = [symbol for symbol, _ in kinds]
    folder = Path(folder)
    make_folder(folder)
    # lammps-jax broadcasts between ranks
    with jax.enable_x64(target.dtype == "float64"), jax.numpy_rank_promotion("allow"):
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, target.dtype), opened.params)
        export_model(
            energy_fn=energy_of_lists(opened.potential, params, opened.head, symbols),
            path=folder / PROGRAM,
            max_atoms=size.max_atoms,
            max_neighbors=size.max_neighbors,
            cutoff=opened.potential.cutoff,
            unit_style="metal",
            precision=target.dtype,
            n_hops=hops(opened.potential),
            n_species=len(symbols),
            platform=target.platform,
        )
    write_atomic(folder / DATA, data)
    write_atomic(folder / INPUT, input_text(atoms, symbols, LammpsRun(), _FORCES) + "run             1000\n")
    return size


_FORCES = f"""\
neighbor        {SKIN:g} bin
pair_style      jax/kk ${{pjrt}}
pair_coeff      * * {PROGRAM}
"""
