"""What ``mlipjax md`` takes from the structure's file besides positions, and what it says about it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from mlipjax.cli.bounds import check_atoms
from mlipjax.data import read_last_atoms
from mlipjax.md import Start
from mlipjax.notices import notice

if TYPE_CHECKING:
    from ase import Atoms

    from mlipjax.cli.options.md import MD


def read_start(command: MD) -> Start:
    """Read the structure with its masses and constraints, and its momenta where they are to be used.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no structure, one that cannot be repeated, or what it says cannot be honoured.
    """
    atoms = read_repeated(command.structure, command.repeat)
    try:
        start = Start.from_ase(atoms)
    except ValueError as error:
        raise ValueError(f"{command.structure}: {error}") from error
    if start.n_fixed:
        notice(
            f"{command.structure}: {start.n_fixed} of {len(atoms)} atoms are fixed there and stay where they are; the "
            "temperature counts what moves."
        )
    if start.system.masses is not None:
        notice(f"{command.structure}: the masses given there are used.")
    if _uses_momenta(command, start):
        _say_momenta(command, start)
        return start
    return dataclasses.replace(start, momenta=None)


def temperature_of(command: MD, start: Start) -> float:
    """K around which limits are set: the one asked for; at constant energy that of the given momenta."""
    given = start.temperature_K
    return command.temperature if given is None or command.ensemble != "nve" else given


def read_repeated(path: Path, repeat: tuple[int, int, int]) -> Atoms:
    """Read the last structure of a file, and repeat its cell.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no structure, a molecule without a cell is to be repeated, or it becomes too large.
    """
    atoms = read_last_atoms(path)
    if repeat == (1, 1, 1):
        return atoms
    if min(repeat) < 1 or atoms.cell.rank < 3:
        raise ValueError(f"cannot repeat this structure {repeat} times: that needs a cell and positive numbers.")
    check_atoms(len(atoms), repeat)
    return atoms.repeat(repeat)


def _uses_momenta(command: MD, start: Start) -> bool:
    """Whether the run starts with the file's momenta; what a file says and is not used is said."""
    if start.momenta is None:
        if command.velocities == "file":
            raise ValueError(
                f"{command.structure}: no momenta in this file; leave --velocities out to draw velocities."
            )
        return False
    stochastic = command.ensemble == "nvt" and command.thermostat in (None, "langevin", "csvr")
    if command.velocities == "file" and command.replicas > 1 and not stochastic:
        raise ValueError(
            f"{command.replicas} replicas that start with the same momenta would all do the same; choose --replicas 1, "
            "--velocities draw, or a thermostat with noise (langevin, csvr)."
        )
    if command.velocities is not None:
        return command.velocities == "file"
    copies = command.replicas > 1 or command.repeat != (1, 1, 1)
    if copies:
        notice(
            f"{command.structure}: its momenta are not used, as copies would move alike; velocities are drawn "
            "(--velocities file uses them)."
        )
    return not copies


def _say_momenta(command: MD, start: Start) -> None:
    lost = " without the motion of the centre of mass or of fixed atoms" if start.lost_momentum else ""
    aim = "" if command.ensemble != "nve" else "; --temperature is not used"
    notice(
        f"{command.structure}: the run starts with the momenta given there{lost} ({start.temperature_K:.0f} K{aim}); "
        "--velocities draw draws velocities anew."
    )
