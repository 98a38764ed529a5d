"""``mlipjax relax``: positions and cells at rest."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from mlipjax.cli.call import call
from mlipjax.cli.options.relax import Relax
from mlipjax.cli.output import make_console, write_json
from mlipjax.cli.progress import Working
from mlipjax.cli.relax_tables import one_line, summary, table
from mlipjax.data.write import check_name, write_atoms
from mlipjax.verbs import Relaxation, relax
from mlipjax.verbs.inputs import name_of, told_paths


def run(command: Relax) -> None:
    """Relax, print and write.

    Raises:
        ValueError, FileNotFoundError: if model, structures or options cannot be used.
        ProbeDiverged: if energies become NaN or infinite.
    """
    if command.write is not None:
        check_name(command.write)
    console = make_console(quiet=command.quiet)
    with Working(console, f"relaxing {name_of(command.structure)}") as working:
        found: Any = call(  # a list: structures of a file
            relax,
            command,
            keep_path=command.out is not None,
            on_step=lambda step, force: working.say(f"evaluation {step}: largest force {force:.3g} eV/Å"),
        )
    _print(console, command, found)
    results: dict[str, Any] = {
        "model": command.model,
        "structure": told_paths(command.structure),
        "cell": command.cell,
        "dtype": command.dtype,
        "converged": all(one.converged for one in found),
        "structures": [one.as_dict() for one in found],
    }
    _write(console, command, found)
    write_json(command.json, results)
    if command.out is not None:
        write_json(command.out / "results.json", results)


def _print(console: Console, command: Relax, found: list[Relaxation]) -> None:
    if len(found) <= _IN_FULL:
        for index, one in enumerate(found):
            console.print(table(one, f"structure {index}: " if len(found) > 1 else ""))
    else:
        console.print(summary(found))
    for index, one in enumerate(found):
        if len(found) <= _IN_FULL or not one.converged:
            console.print(one_line(index, one, command.fmax))


def _write(console: Console, command: Relax, found: list[Relaxation]) -> None:
    for file in (command.write, None if command.out is None else command.out / "relaxed.extxyz"):
        if file is not None:
            write_atoms(file, (one.atoms for one in found))
            console.print(f"relaxed structures: {file}")
    if command.out is not None:
        write_atoms(command.out / "path.extxyz", (atoms for one in found for atoms in one.path))
        console.print(f"all structures on the way: {command.out / 'path.extxyz'}")


_IN_FULL = 5
"""So many structures get a table each; more of them get a line each."""
