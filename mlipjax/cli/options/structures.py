"""Options of commands that move atoms, and of the probes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from mlipjax.cli.options.common import LABELS, Computes, LabelOptions, Network, Products, Sections, Spreads
from mlipjax.defaults import ATMOSPHERE_BAR, BAROSTAT_DAMPING_FS, BOND_FACTOR, DAMPING_FS, FRICTION_PER_PS, SPRING


@dataclasses.dataclass(frozen=True)
class Relax(Computes):
    """Relax structures: positions, and with --cell the cell too.

    Structures of the same atoms are relaxed side by side. Fixed atoms (FixAtoms; move_mask in extended xyz) stay where
    they are. What has not converged after --steps is said, and the exit code is 0 all the same.

    Attributes:
        model: name, .nqx or .model file or saved folder; or ase:module:factory.
        structure: files of any format that ASE reads (POSCAR, cif, extended xyz, ...), slices such as FILE@:100,
            patterns, folders; every structure in them is relaxed.
        cell: what relaxes besides positions: nothing (none), the volume at fixed shape (volume), or lengths and angles
            (full).
        pressure: GPa on the outside; needs --cell volume or full.
        fmax: eV/Å, largest force at which a structure is converged; of a cell, the stress left over times volume
            over the number of atoms.
        steps: evaluations at most.
        head: name of the energy head; by default the model's first.
        dtype: precision of the network.
        dispersion: added to the model, as d3bj:FUNCTIONAL; refused where its labels contain it already.
        write: write the relaxed structures with energy, forces and stress to this file (extended xyz).
        out: or to this folder, as relaxed.extxyz, with every structure on the way as path.extxyz and results.json.
    """

    model: str
    structure: tuple[Path, ...]
    cell: Literal["none", "volume", "full"] = "none"
    pressure: float = 0.0
    fmax: float = 0.01
    steps: int = 500
    head: str | None = None
    dtype: Literal["float32", "float64"] = "float64"
    dispersion: str | None = None
    write: Path | None = None
    out: Path | None = None


@dataclasses.dataclass(frozen=True)
class Neb(Computes, Network):
    """Find the minimum-energy path of a model between two structures, and the barrier on it (climbing image).

    Both ends are relaxed first, so that the barrier is the model's own; the energies of the images as they are given
    are reported as well. Atoms that the first file fixes (move_mask in extended xyz, FixAtoms) stay where they are.

    Attributes:
        model: name, .nqx file or saved folder.
        images: files with the images in order, every frame of each: both ends, or a whole path.
        n_images: images of the band, ends included; by default 7 between two ends, or as many as given.
        interpolation: how the path starts when only its ends are given.
        fmax: eV/Å, largest force at which an image is converged.
        climb: whether the highest image climbs to the saddle point.
        relax_ends: whether both ends are relaxed first.
        spring: eV/Å^2, between images along the path.
        steps: evaluations at most, of the ends and of the band each.
        out: also write images.extxyz, neb.png and results.json to this folder; a name that ends in .extxyz is taken as
            --write.
        write: also write the images with energies to this file (extended xyz).
        figure: also draw energies along the path to this PNG.
    """

    sections: ClassVar[Sections] = {
        "main options": "model images n_images fmax steps out write figure",
        "band": "interpolation climb relax_ends spring",
    }

    model: str
    images: tuple[Path, ...]
    n_images: int | None = None
    interpolation: Literal["idpp", "linear"] = "idpp"
    fmax: float = 0.05
    climb: bool = True
    relax_ends: bool = True
    spring: float = SPRING
    steps: int = 500
    out: Path | None = None
    write: Path | None = None
    figure: Path | None = None


@dataclasses.dataclass(frozen=True)
class Slide(Computes, Network):
    """Slide the layers of a crystal over each other: along a vector, or over the whole plane (--surface).

    Layers are found by connectivity; the first two lattice vectors must lie in them. One interface per cell slips.
    Relaxed energies let atoms and cell height relax along the normal.

    Attributes:
        model: name, .nqx file or saved folder.
        structure: layered crystal, any file ASE reads; of several frames the last one.
        vector: end of the path in the first two lattice vectors; 1 0 is a whole period.
        points: shifts along the vector, both ends included.
        surface: instead of a path, an N x N grid of the plane; multiples of 6 suit hexagonal layers.
        symmetry: compute only one of the grid's shifts that symmetry makes equal.
        relaxed: also relax along the normal.
        interface: gap that slips, counted from the lowest layer; by default the widest.
        bond_factor: atoms closer than this many times the sum of their covalent radii are one layer.
        fmax: eV/Å, largest force along the normal at which a structure is relaxed.
        steps: evaluations at most.
        figure: also draw the result to this PNG.
    """

    sections: ClassVar[Sections] = {
        "main options": "model structure vector points surface relaxed figure",
        "layers": "interface bond_factor symmetry",
        "relaxation": "fmax steps",
    }

    model: str
    structure: Path
    vector: tuple[float, float] = (1.0, 0.0)
    points: int = 13
    surface: int | None = None
    symmetry: bool = True
    relaxed: bool = True
    interface: int | None = None
    bond_factor: float = BOND_FACTOR
    fmax: float = 0.02
    steps: int = 300
    figure: Path | None = None


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


Name = Literal[
    "eos", "elastic", "gamma", "phonons", "vacancy", "dimer", "softening", "rdf", "diffusion", "vdos", "events", "order"
]


@dataclasses.dataclass(frozen=True)
class Probe(Computes):
    """Run one probe and say its verdict.

    A model and a structure: eos (equation of state), elastic, gamma (modes at Gamma, exact), phonons, vacancy. A model
    and elements: dimer. A model and labelled structures: softening. A trajectory alone: rdf, diffusion, vdos, events,
    order.

    Attributes:
        name: which probe.
        model: name, .nqx file or saved folder; or ase:module:factory.
        head: name of the model's energy head; by default its first.
        structure: file with the structure, relaxed beforehand where the probe needs it.
        data: labelled structures, for softening.
        labels: names of the labels in that file.
        trajectory: frames of a simulation.
        run: replica of the trajectory, where its frames say "run": a name or number; by default the only one, or 0.
        spacing_ps: ps between frames; by default what the frames say.
        repeat: supercell, for phonons; by default the smallest one that holds twice the model's cutoff, in the shortest
            lattice vectors of the primitive cell.
        phonopy: also write force constants to this file, as a phonopy.yaml, for phonons.
        site: atom that is taken out, for vacancy.
        reservoirs: energy in eV that an atom of each element has where it goes, for a vacancy in a compound, such as
            O -4.9; an element's own crystal needs none.
        elements: symbols, for dimer (by default those of the structure) and events (by default all).
        cutoff: Å, longest distance for rdf (by default 6), or end of the first shell for order (by default the first
            minimum of g(r)).
        figure: also draw the result into this PNG.
    """

    sections: ClassVar[Sections] = {
        "main options": "name model structure data trajectory figure",
        "of some probes": "elements repeat phonopy site cutoff run spacing_ps",
        "labels": LABELS,
    }

    name: Annotated[Name, tyro.conf.Positional]
    model: str | None = None
    head: str | None = None
    structure: Path | None = None
    data: tuple[Path, ...] = ()
    labels: tyro.conf.OmitArgPrefixes[LabelOptions] = dataclasses.field(default_factory=LabelOptions)
    trajectory: Path | None = None
    run: str | None = None
    spacing_ps: float | None = None
    repeat: tuple[int, int, int] | None = None
    phonopy: Path | None = None
    site: int = 0
    reservoirs: dict[str, float] = dataclasses.field(default_factory=dict)
    elements: tuple[str, ...] = ()
    cutoff: float | None = None
    figure: Path | None = None
