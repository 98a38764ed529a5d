"""A folder that i-PI runs as it is: input, start structure, template."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from xml.etree import ElementTree as Xml

from ase import Atoms
from ase.io import write

from mlipjax.files import make_folder, write_atomic
from mlipjax.notices import notice

_SYNTAX = ",{}[]"
"""Characters that end a value in i-PI's lists."""

INPUT, TEMPLATE, START = "input.xml", "template.extxyz", "start.xyz"


@dataclasses.dataclass(frozen=True)
class IpiRun:
    """Settings of a run with i-PI.

    Attributes:
        beads: of each ring polymer; 1 is classical molecular dynamics.
        ensemble: nve or nvt (thermostat PILE-G).
        temperature: K, of the thermostat and of the first velocities.
        timestep: fs.
        steps: time steps.
        every: steps between lines of ``run.out`` and frames of ``run.pos``.
        damping: fs, time constant of the thermostat of the centroid.
        dtype: precision of the network.
        seed: of velocities and thermostat.
    """

    beads: int = 1
    ensemble: str = "nvt"
    temperature: float = 300.0
    timestep: float = 0.5
    steps: int = 1000
    every: int = 10
    damping: float = 100.0
    dtype: str = "float64"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.ensemble not in ("nve", "nvt"):
            raise ValueError(f"ensemble is {self.ensemble!r}; choose nve or nvt.")
        if self.dtype not in ("float32", "float64"):
            raise ValueError(f"dtype must be 'float32' or 'float64', found {self.dtype!r}.")
        for name in ("beads", "steps", "every"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} must be at least 1, found {value}.")
        for name in ("temperature", "timestep", "damping"):
            if not 0.0 < (value := getattr(self, name)) < float("inf"):
                raise ValueError(f"{name} must be positive, found {value}.")


def write_ipi_run(folder: str | Path, model: str, atoms: Atoms, run: IpiRun | None = None) -> Path:
    """Write a folder in which ``i-pi input.xml`` runs as it is; return the path of the input.

    The model is called inside i-PI's process, all beads in one call.

    Args:
        folder: made if absent.
        model: as ``mlipjax.load`` takes it; a path is written in full.
        atoms: start structure; periodicity is that of the structure.
        run: settings.

    Raises:
        ValueError: for a structure without a cell, which i-PI needs also for molecules, constraints, which it would
            not know, or a path that its input cannot hold.
        OSError: if the folder cannot be written.
    """
    run = IpiRun() if run is None else run
    if atoms.cell.rank < 3:
        raise ValueError(f"i-PI needs a cell with three vectors, found {atoms.cell.rank}; put the structure in a box.")
    if atoms.constraints:
        raise ValueError("the structure has constraints, which i-PI would not know; remove them.")
    path = str(Path(model).resolve()) if Path(model).exists() else model
    if set(path) & set(_SYNTAX):
        raise ValueError(f"i-PI cannot read {path!r} in its input: it has one of {_SYNTAX}; move the model elsewhere.")
    if atoms.has("momenta"):
        notice("the momenta of the structure are not used; velocities are drawn.")
    folder = Path(folder)
    make_folder(folder)
    atoms = _in_standard_form(atoms)
    write(folder / TEMPLATE, atoms, format="extxyz", columns=["symbols", "positions"], write_results=False)
    write_atomic(folder / START, _start(atoms))
    write_atomic(folder / INPUT, _input(path, atoms, run))
    return folder / INPUT


def _in_standard_form(atoms: Atoms) -> Atoms:
    """Turned so that the first lattice vector lies along x and the second in the xy plane, as i-PI keeps cells."""
    turned = atoms.copy()
    turned.set_cell(atoms.cell.standard_form()[0], scale_atoms=True)
    return turned


def _start(atoms: Atoms) -> str:
    columns = " ".join(f"{x:.12f}" for x in atoms.cell.array.T.ravel())
    rows = [
        f"{symbol} {x:.12f} {y:.12f} {z:.12f}"
        for symbol, (x, y, z) in zip(atoms.get_chemical_symbols(), atoms.positions, strict=True)
    ]
    comment = f"# CELL{{H}}: {columns} positions{{angstrom}} cell{{angstrom}}"
    return "\n".join([str(len(atoms)), comment, *rows]) + "\n"


def _input(model: str, atoms: Atoms, run: IpiRun) -> str:
    root = Xml.Element("simulation", verbosity="low")
    output = Xml.SubElement(root, "output", prefix="run")
    columns = "time{femtosecond}, conserved{electronvolt}, temperature{kelvin}, kinetic_cv{electronvolt}, "
    columns += "potential{electronvolt}, pressure_cv{gigapascal}"
    _add(output, "properties", f"[ step, {columns} ]", stride=str(run.every), filename="out")
    _add(output, "trajectory", "positions{angstrom}", stride=str(run.every), filename="pos", format="xyz")
    Xml.SubElement(output, "checkpoint", stride=str(100 * run.every))
    _add(root, "total_steps", str(run.steps))
    _add(Xml.SubElement(root, "prng"), "seed", str(run.seed))
    field = Xml.SubElement(root, "ffdirect", name="mlipjax")
    _add(field, "pes", "custom")
    _add(field, "pes_path", str(Path(__file__).resolve().with_name("ipi_driver.py")))
    _add(field, "batch_size", str(run.beads))
    _add(field, "parameters", f"{{model: {model}, template: {TEMPLATE}, dtype: {run.dtype}}}")
    system = Xml.SubElement(root, "system")
    start = Xml.SubElement(system, "initialize", nbeads=str(run.beads))
    _add(start, "file", START, mode="xyz")
    masses = ", ".join(f"{mass:.6f}" for mass in atoms.get_masses())
    _add(start, "masses", f"[ {masses} ]", mode="manual", units="dalton")
    _add(start, "velocities", f"{run.temperature:g}", mode="thermal", units="kelvin")
    Xml.SubElement(Xml.SubElement(system, "forces"), "force", forcefield="mlipjax")
    dynamics = Xml.SubElement(Xml.SubElement(system, "motion", mode="dynamics"), "dynamics", mode=run.ensemble)
    _add(dynamics, "timestep", f"{run.timestep:g}", units="femtosecond")
    if run.ensemble == "nvt":
        thermostat = Xml.SubElement(dynamics, "thermostat", mode="pile_g")
        _add(thermostat, "tau", f"{run.damping:g}", units="femtosecond")
        # the friction of Ceriotti et al., J. Chem. Phys. 133, 124104 (2010), halved as i-PI recommends
        _add(thermostat, "pile_lambda", "0.5")
    _add(Xml.SubElement(system, "ensemble"), "temperature", f"{run.temperature:g}", units="kelvin")
    Xml.indent(root)
    return Xml.tostring(root, encoding="unicode") + "\n"


def _add(parent: Xml.Element, tag: str, text: str, **attributes: str) -> None:
    Xml.SubElement(parent, tag, attributes).text = text
