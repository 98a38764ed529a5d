"""Options of ``mlipjax simulate``, which is also called ``mlipjax md``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar, Literal

from mlipjax.cli.options.common import Network, Products, Sections, Spreads
from mlipjax.defaults import ATMOSPHERE_BAR, BAROSTAT_DAMPING_FS, DAMPING_FS, FRICTION_PER_PS


@dataclasses.dataclass(frozen=True)
class Simulate(Spreads, Products, Network):
    """Simulate a structure; the same command again continues a run that was stopped, more steps extend it.

    Attributes:
        model: name, .nqx file or saved folder.
        structure: any file ASE reads; of several frames the last one. Its masses and fixed atoms (FixAtoms, move_mask)
            are honoured, its momenta as --velocities says.
        out: folder for trajectory.extxyz, what a restart needs, and results.json; a name that ends in .extxyz is taken
            as --write.
        write: or the trajectory alone, extended xyz with energies, forces and momenta, and beside it what a restart
            needs; replicas are told apart by ``run``.
        steps: number of steps from the start.
        ensemble: constant energy, temperature, or temperature and isotropic pressure.
        thermostat: for nvt langevin (default), nose-hoover or csvr; npt has nose-hoover.
        temperature: K; for nve that of velocities that are drawn.
        velocities: "file" for the momenta of the structure, or "draw"; by default those of the file where it has some
            and one copy of the cell is simulated.
        pressure: bar, for npt.
        timestep: fs; by default 0.5 with hydrogen, 1 with other light atoms, 2 otherwise.
        replicas: number of copies, each with velocities and noise of its own.
        every: steps between frames.
        repeat: how often to repeat the cell along its three vectors.
        friction: 1/ps, for langevin.
        damping: fs, for nose-hoover and csvr.
        barostat_damping: fs, for npt.
        hottest: stop if the temperature exceeds this many times the one asked for.
        closest: stop if two atoms are closer than this part of the sum of their covalent radii.
        monitor: monitor.npz saved by mlipjax monitor for this model: its charts are read during the run.
        uncertainty: error bars that mlipjax calibrate gave the model, written with every frame and read along the run:
            llpr, shallow:MEMBERS or committee.
        largest_force_std: with --uncertainty: eV/Å, of an atom's force, above which it is an alarm; by default the
            largest on the structures of the calibration.
        on_alarm: with --monitor or --uncertainty: "stop" when a replica has been out of control for --alarm-readings
            readings, with its frame saved next to the trajectory, or "ignore" and only count.
        alarm_index: with --monitor: the number of a frame that decides.
        alarm_readings: likewise: readings in a row that make an alarm; one in a hundred is high by chance.
        monitor_every: likewise: least number of steps between two readings.
        dispersion: added to the model, as d3bj:FUNCTIONAL; refused where its labels contain it already.
        dtype: precision of network and integrator.
        seed: of velocities and noise.
    """

    sections: ClassVar[Sections] = {
        "main options": (
            "model structure out write steps ensemble temperature pressure timestep every replicas repeat monitor "
            "uncertainty"
        ),
        "ensemble": "thermostat friction damping barostat_damping velocities seed",
        "when to stop": "hottest closest on_alarm largest_force_std alarm_index alarm_readings monitor_every",
    }

    model: str
    structure: Path
    steps: int
    out: Path | None = None
    write: Path | None = None
    ensemble: Literal["nve", "nvt", "npt"] = "nvt"
    thermostat: Literal["langevin", "nose-hoover", "csvr"] | None = None
    temperature: float = 300.0
    velocities: Literal["file", "draw"] | None = None
    pressure: float = ATMOSPHERE_BAR
    timestep: float | None = None
    replicas: int = 1
    every: int = 100
    repeat: tuple[int, int, int] = (1, 1, 1)
    friction: float = FRICTION_PER_PS
    damping: float = DAMPING_FS
    barostat_damping: float = BAROSTAT_DAMPING_FS
    hottest: float = 5.0
    closest: float = 0.5
    monitor: Path | None = None
    on_alarm: Literal["stop", "ignore"] = "stop"
    alarm_index: Literal["q", "t2", "combined", "worst"] = "combined"
    alarm_readings: int = 3
    monitor_every: int = 50
    uncertainty: str | None = None
    largest_force_std: float | None = None
    dispersion: str | None = None
    seed: int = 0
