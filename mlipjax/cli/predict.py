"""``mlipjax predict``: energies, forces, stresses and features, written to a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from ase import Atoms

from mlipjax.cli.call import call
from mlipjax.cli.options.judging import Predict
from mlipjax.cli.output import LeftOut, make_console, write_json
from mlipjax.cli.progress import Working
from mlipjax.cli.tables import Table
from mlipjax.data.write import check_name, write_atoms
from mlipjax.hosts import is_first
from mlipjax.units import GPA
from mlipjax.verbs import predict_each
from mlipjax.verbs.inputs import described, name_of, told_paths


def run(command: Predict) -> None:
    """Predict, print and write."""
    if command.write is not None:
        check_name(command.write)
    console, left_out = make_console(quiet=command.quiet), LeftOut()
    seen = _Seen(left_out)
    with Working(console, f"predicting {name_of(command.data)}") as working:
        counted = seen.count(call(predict_each, command, leave_out=left_out), working.say)
        if command.write is None or not is_first():
            for _ in counted:
                pass
        else:
            write_atoms(command.write, counted)
    if seen.n_structures == 0:
        found = "no structure has an energy" if left_out else "no structure in this file"
        raise ValueError(f"{described(command.data)}: {found}.")
    headings = ("", "formula", "atoms", "energy (eV)", "eV/atom", "max |F| (eV/Å)", "pressure (GPa)")
    console.print(Table(headings, seen.rows, name_columns=2))
    if seen.n_structures > len(seen.rows):
        console.print(f"... and {seen.n_structures - len(seen.rows)} more")
    summary = f"{seen.n_structures} structures, {seen.n_atoms} atoms; {seen.n_stresses} with stress"
    console.print(summary if command.write is None else f"{summary}: {command.write}")
    report: dict[str, Any] = {"model": command.model, "data": told_paths(command.data), "write": command.write}
    write_json(
        command.json, report | seen.as_dict() | {"dtype": command.dtype, **({"left_out": left_out} if left_out else {})}
    )
    left_out.refuse(described(command.data))


class _Seen:
    """Counts structures that pass by, and keeps the numbers of the first few."""

    SHOWN = 12

    def __init__(self, left_out: LeftOut) -> None:
        self.left_out = left_out
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
        results = _results(atoms)
        energy, n = results["energy"], len(atoms)
        force = np.linalg.norm(results["forces"], axis=1).max()
        pressure = f"{-results['stress'][:3].mean() / GPA:.3f}" if "stress" in results else "-"
        columns = (str(n), f"{energy:.4f}", f"{energy / n:.4f}", f"{force:.4f}", pressure)
        return str(self.left_out.number(self.n_structures)), atoms.get_chemical_formula(), *columns

    def as_dict(self) -> dict[str, Any]:
        """Counts and energies, JSON types."""
        counts = {"n_structures": self.n_structures, "n_atoms": self.n_atoms, "n_stresses": self.n_stresses}
        return {**counts, "energies_eV": self.energies}


def _results(atoms: Atoms) -> dict[str, Any]:
    calculator: Any = atoms.calc
    return calculator.results
