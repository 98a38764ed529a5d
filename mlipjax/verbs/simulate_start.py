"""Reading of masses, constraints and momenta for a simulation, and what is said about them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from mlipjax.md import Start
from mlipjax.md.make import EnsembleName, ThermostatName
from mlipjax.notices import notice
from mlipjax.verbs.inputs import Structures, described, last_of, repeated

if TYPE_CHECKING:
    from ase import Atoms

Velocities = Literal["file", "draw"]
"""Sources of velocities: the structure's momenta, or a Maxwell-Boltzmann distribution."""


@dataclasses.dataclass(frozen=True)
class Wanted:
    """The options that decide how a run starts; words as in ``verbs.simulate``."""

    ensemble: EnsembleName
    thermostat: ThermostatName | None
    temperature: float
    velocities: Velocities | None
    replicas: int
    repeat: tuple[int, int, int]

    @property
    def noisy(self) -> bool:
        """Tell whether replicas with the same start part from each other."""
        return self.ensemble == "nvt" and self.thermostat in (None, "langevin", "csvr")


def read_start(structure: Structures, wanted: Wanted) -> Start:
    """Take a structure with its masses and constraints, and its momenta where they are to be used.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if there is no structure, it cannot be repeated, or what it says cannot be honoured.
    """
    name = described(structure)
    start = start_of(repeated(last_of(structure), wanted.repeat), name)
    if _uses_momenta(name, wanted, start):
        _say_momenta(name, wanted, start)
        return start
    return dataclasses.replace(start, momenta=None)


def start_of(atoms: Atoms, name: str) -> Start:
    """Take a structure with masses, constraints and momenta; the first two are said.

    Raises:
        ValueError: naming the structure, if what it says cannot be honoured.
    """
    try:
        start = Start.from_ase(atoms)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    if start.n_fixed:
        notice(
            f"{name}: {start.n_fixed} of {len(atoms)} atoms are fixed there and stay where they are; the temperature "
            "counts what moves."
        )
    if start.system.masses is not None:
        notice(f"{name}: the masses given there are used.")
    return start


def temperature_of(wanted: Wanted, start: Start) -> float:
    """K around which limits are set: the one asked for; at constant energy that of the given momenta."""
    given = start.temperature_K
    return wanted.temperature if given is None or wanted.ensemble != "nve" else given


def _uses_momenta(name: str, wanted: Wanted, start: Start) -> bool:
    """Return whether the run starts with the given momenta; what is given and not used is said."""
    if start.momenta is None:
        if wanted.velocities == "file":
            raise ValueError(f'{name}: no momenta in this file; choose velocities="draw", or leave that out.')
        return False
    if wanted.velocities == "file" and wanted.replicas > 1 and not wanted.noisy:
        raise ValueError(
            f"{wanted.replicas} replicas that start with the same momenta would all do the same; choose replicas=1, "
            'velocities="draw", or a thermostat with noise (langevin, csvr).'
        )
    if wanted.velocities is not None:
        return wanted.velocities == "file"
    copies = wanted.replicas > 1 or tuple(wanted.repeat) != (1, 1, 1)
    if copies:
        notice(
            f"{name}: its momenta are not used, as copies would move alike; velocities are drawn "
            '(velocities="file" uses them).'
        )
    return not copies


def _say_momenta(name: str, wanted: Wanted, start: Start) -> None:
    lost = " without the motion of the centre of mass or of fixed atoms" if start.lost_momentum else ""
    aim = "" if wanted.ensemble != "nve" else "; the temperature asked for is not used"
    notice(
        f"{name}: the run starts with the momenta given there{lost} ({start.temperature_K:.0f} K{aim}); "
        'velocities="draw" draws them anew.'
    )
