"""``mlipjax predict``: energies, forces, stresses and features, written to a file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ase import Atoms


@dataclasses.dataclass(frozen=True)
class Predict:
    """Predict energies, forces and stresses of structures; labels are not needed, and not used.

    The file written is extended xyz with energy (eV), forces (eV/Å), energies per atom (eV), stress (eV/Å^3, tension
    positive) where there is a volume, and the model's name: ASE, OVITO and others read it. A file of any size is read
    and written structure by structure.

    Attributes:
        model: name, .nqx or .model file or saved folder; or ase:module:factory.
        data: structures, any file that ASE reads (extended xyz, POSCAR, cif, trajectories, ...).
        write: file to write (.extxyz, .xyz; also .gz or .xz).
        features: also write the features of every atom, as the column features.
        head: name of the energy head; by default the model's first.
        dtype: precision of the network.
        batch_size: structures computed together.
        max_slots: padded atoms times neighbour slots computed at once; lower it if memory runs out.
        json: also write a summary to this file.
    """

    model: str
    data: Path
    write: Path | None = None
    features: bool = False
    head: str | None = None
    dtype: Literal["float32", "float64"] = "float32"
    batch_size: int = 8
    max_slots: int = 65_536
    json: Path | None = None


def run(command: Predict) -> None:
    """Predict, print and write.

    Raises:
        ValueError, FileNotFoundError: if model or structures cannot be used, or a prediction is not finite.
    """
    from rich.console import Console

    from mlipjax import runtime
    from mlipjax.cli.error_tables import make_table
    from mlipjax.cli.output import write_json
    from mlipjax.cli.progress import Working
    from mlipjax.data.write import check_name, write_atoms
    from mlipjax.verbs import predict_each

    runtime.select_dtype(command.dtype)
    if command.write is not None:
        check_name(command.write)
    console, seen = Console(markup=False, highlight=False), _Seen()
    with Working(console, f"predicting {command.data.name}") as working:
        frames = predict_each(
            command.model,
            command.data,
            head=command.head,
            dtype=command.dtype,
            batch_size=command.batch_size,
            max_slots=command.max_slots,
            features=command.features,
        )
        counted = seen.count(frames, working.say)
        if command.write is None:
            for _ in counted:
                pass
        else:
            write_atoms(command.write, counted)
    if seen.n_structures == 0:
        raise ValueError(f"{command.data}: no structure in this file.")
    headings = ("", "formula", "atoms", "energy (eV)", "eV/atom", "max |F| (eV/Å)", "pressure (GPa)")
    console.print(make_table(headings, seen.rows))
    if seen.n_structures > len(seen.rows):
        console.print(f"... and {seen.n_structures - len(seen.rows)} more")
    summary = f"{seen.n_structures} structures, {seen.n_atoms} atoms; {seen.n_stresses} with stress"
    console.print(summary if command.write is None else f"{summary}: {command.write}", soft_wrap=True)
    report: dict[str, Any] = {"model": command.model, "data": command.data, "write": command.write}
    write_json(command.json, report | seen.as_dict() | {"dtype": command.dtype})


class _Seen:
    """Counts structures that pass by, and keeps the numbers of the first few."""

    SHOWN = 12

    def __init__(self) -> None:
        self.n_structures = self.n_atoms = self.n_stresses = 0
        self.rows: list[tuple[str, ...]] = []
        self.energies: list[float] = []

    def count(self, frames: Iterator[Atoms], say: Any) -> Iterator[Atoms]:
        """Yield what comes."""
        for atoms in frames:
            if len(self.rows) < self.SHOWN:
                self.rows.append(self._row(atoms))
            self.energies.append(float(atoms.get_potential_energy()))
            self.n_structures += 1
            self.n_atoms += len(atoms)
            self.n_stresses += "stress" in _results(atoms)
            say(f"{self.n_structures} structures")
            yield atoms

    def _row(self, atoms: Atoms) -> tuple[str, ...]:
        import numpy as np

        from mlipjax.units import GPA

        results = _results(atoms)
        energy, n = results["energy"], len(atoms)
        force = np.linalg.norm(results["forces"], axis=1).max()
        pressure = f"{-results['stress'][:3].mean() / GPA:.3f}" if "stress" in results else "-"
        columns = (str(n), f"{energy:.4f}", f"{energy / n:.4f}", f"{force:.4f}", pressure)
        return str(self.n_structures), atoms.get_chemical_formula(), *columns

    def as_dict(self) -> dict[str, Any]:
        """Counts and energies, JSON types."""
        counts = {"n_structures": self.n_structures, "n_atoms": self.n_atoms, "n_stresses": self.n_stresses}
        return {**counts, "energies_eV": self.energies}


def _results(atoms: Atoms) -> dict[str, Any]:
    calculator: Any = atoms.calc
    return calculator.results
