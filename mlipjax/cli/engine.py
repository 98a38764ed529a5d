"""``mlipjax engine``: a folder in which another simulation program runs with a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ase import Atoms

from mlipjax.cli.bounds import option
from mlipjax.cli.call import given
from mlipjax.cli.options.formats import Engine
from mlipjax.cli.output import make_console, write_json
from mlipjax.engines import EngineRun, IpiRun, LammpsRun, write_ipi_run, write_lammps_run
from mlipjax.locks import folder_alone
from mlipjax.verbs.inputs import last_of

_ENGINES: dict[str, tuple[type[EngineRun], Callable[[Path, str, Atoms, Any], Path], str]] = {
    "ipi": (IpiRun, write_ipi_run, "i-pi"),
    "lammps": (LammpsRun, write_lammps_run, "python"),
}
"""Settings of each program, what writes its folder, and how it is started there."""


def run(command: Engine) -> None:
    """Write the folder and say how to start the program."""
    kind, write, program = _ENGINES[command.name]
    taken = {field.name for field in dataclasses.fields(kind)}
    common = {"name", "model", "structure", "out", "json", "quiet"}
    wanted = {name: value for name, value in given(command).items() if name not in common and value is not None}
    if strange := sorted(set(wanted) - taken):
        raise ValueError(f"{command.name} takes no {option(strange[0])}; leave it out.")
    settings = kind(**wanted)
    with folder_alone(command.out):
        start = write(command.out, command.model, last_of(command.structure), settings)
    line = f"cd {command.out} && {program} {start.name}"
    make_console(quiet=command.quiet).print(f"{start}: start it by {line}")
    write_json(
        command.json,
        {"model": command.model, "structure": command.structure, "start": line, **dataclasses.asdict(settings)},
    )
