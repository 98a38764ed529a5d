"""``mlipjax export``: a program that LAMMPS runs by itself."""

from __future__ import annotations

from mlipjax.cli.call import given
from mlipjax.cli.options.formats import Export
from mlipjax.cli.output import make_console, write_json
from mlipjax.engines.export import PROGRAM, Target, write_lammps_export
from mlipjax.locks import folder_alone
from mlipjax.verbs.inputs import last_of


def run(command: Export) -> None:
    """Write the program, and say what it holds."""
    target = Target(command.processes, command.platform, command.head, command.dtype)
    with folder_alone(command.out):
        size = write_lammps_export(command.out, command.model, last_of(command.structure), target)
    make_console(quiet=command.quiet).print(
        f"{command.out / PROGRAM}: for {size.max_atoms} atoms on a process, ghosts included, and {size.max_neighbors} "
        "neighbours of each"
    )
    write_json(command.json, given(command) | size._asdict())
