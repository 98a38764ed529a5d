"""``mlipjax relax``: positions and cells at rest."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from mlipjax.verbs import Relaxation


@dataclasses.dataclass(frozen=True)
class Relax:
    """Relax structures: positions, and with --cell the cell too.

    Structures of the same atoms are relaxed side by side. Fixed atoms (FixAtoms; move_mask in extended xyz) stay where
    they are. What has not converged after --steps is said, and the exit code is 0 all the same.

    Attributes:
        model: name, .nqx or .model file or saved folder; or ase:module:factory.
        structure: any file that ASE reads (POSCAR, cif, extended xyz, ...); every structure in it is relaxed.
        cell: what relaxes besides positions: nothing (none), the volume at fixed shape (volume), or lengths and angles
            (full).
        pressure: GPa on the outside; needs --cell volume or full.
        fmax: eV/Å, largest force at which a structure is converged; of a cell, the stress left over times volume
            over the number of atoms.
        steps: evaluations at most.
        head: name of the energy head; by default the model's first.
        dtype: precision of the network.
        write: write the relaxed structures with energy, forces and stress to this file (extended xyz).
        out: or to this folder, as relaxed.extxyz, with every structure on the way as path.extxyz and results.json.
        json: also write the result to this file.
    """

    model: str
    structure: Path
    cell: Literal["none", "volume", "full"] = "none"
    pressure: float = 0.0
    fmax: float = 0.01
    steps: int = 500
    head: str | None = None
    dtype: Literal["float32", "float64"] = "float64"
    write: Path | None = None
    out: Path | None = None
    json: Path | None = None


def run(command: Relax) -> None:
    """Relax, print and write.

    Raises:
        ValueError, FileNotFoundError: if model, structures or options cannot be used.
        ProbeDiverged: if energies become NaN or infinite.
    """
    from rich.console import Console

    from mlipjax import runtime
    from mlipjax.cli.output import write_json
    from mlipjax.cli.progress import Working
    from mlipjax.cli.wording import option_words
    from mlipjax.data.write import check_name
    from mlipjax.verbs import relax

    runtime.select_dtype(command.dtype)
    if command.write is not None:
        check_name(command.write)
    console = Console(markup=False, highlight=False)
    with Working(console, f"relaxing {command.structure.name}") as working, option_words(Relax):
        found = relax(
            command.model,
            command.structure,
            cell=command.cell,
            pressure=command.pressure,
            fmax=command.fmax,
            steps=command.steps,
            head=command.head,
            dtype=command.dtype,
            keep_path=command.out is not None,
            on_step=lambda step, force: working.say(f"evaluation {step}: largest force {force:.3g} eV/Å"),
        )
    assert isinstance(found, list)  # of a file
    _print(console, command, found)
    results: dict[str, Any] = {
        "model": command.model,
        "structure": command.structure,
        "cell": command.cell,
        "dtype": command.dtype,
        "converged": all(one.converged for one in found),
        "structures": [one.as_dict() for one in found],
    }
    _write(console, command, found)
    write_json(command.json, results)
    if command.out is not None:
        write_json(command.out / "results.json", results)


def _print(console: Any, command: Relax, found: list[Relaxation]) -> None:
    from mlipjax.cli.relax_tables import one_line, summary, table

    if len(found) <= _IN_FULL:
        for index, one in enumerate(found):
            console.print(table(one, f"structure {index}: " if len(found) > 1 else ""))
    else:
        console.print(summary(found))
    for index, one in enumerate(found):
        if len(found) <= _IN_FULL or not one.converged:
            console.print(one_line(index, one, command.fmax), soft_wrap=True)


def _write(console: Any, command: Relax, found: list[Relaxation]) -> None:
    from mlipjax.data.write import write_atoms

    for file in (command.write, None if command.out is None else command.out / "relaxed.extxyz"):
        if file is not None:
            write_atoms(file, (one.atoms for one in found))
            console.print(f"relaxed structures: {file}", soft_wrap=True)
    if command.out is not None:
        write_atoms(command.out / "path.extxyz", (atoms for one in found for atoms in one.path))
        console.print(f"all structures on the way: {command.out / 'path.extxyz'}", soft_wrap=True)


_IN_FULL = 5
"""So many structures get a table each; more of them get a line each."""
