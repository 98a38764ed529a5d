"""A folder that i-PI runs as it is: input, start structure, template."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from xml.etree import ElementTree as Xml

from ase import Atoms
from ase.io import write

from mlipjax.engines.run import EngineRun, prepare
from mlipjax.files import make_folder, write_atomic

_SYNTAX = ",{}[]"
"""Characters that end a value in i-PI's lists."""

INPUT, TEMPLATE, START = "input.xml", "template.extxyz", "start.xyz"


@dataclasses.dataclass(frozen=True, kw_only=True)
class IpiRun(EngineRun):
    """Settings of a run with i-PI; the thermostat is PILE-G.

    Attributes:
        beads: of each ring polymer; 1 is classical molecular dynamics.
    """

    beads: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("at least 1", lambda value: value >= 1, "beads")


def write_ipi_run(folder: str | Path, model: str, atoms: Atoms, run: IpiRun | None = None) -> Path:
    """Write a folder in which ``i-pi input.xml`` runs as it is; return the path of the input.

    The model is called inside i-PI's process, all beads in one call.

    Args:
        folder: made if absent.
        model: as ``mlipjax.load`` takes it; a path is written in full.
        atoms: start structure; periodicity is that of the structure.
        run: settings.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: for a structure without a cell, which i-PI needs also for
            molecules, or with constraints, which it would not know; a model that cannot be loaded or does not know an
            element, or whose path the input cannot hold.
        OSError: if the folder cannot be written.
    """
    run = IpiRun() if run is None else run
    path, atoms = prepare(model, atoms, run.head)
    for value in (path, run.head or ""):
        if set(value) & set(_SYNTAX):
            raise ValueError(f"i-PI cannot read {value!r} in its input: it has one of {_SYNTAX}; give it another name.")
    folder = Path(folder)
    make_folder(folder)
    write(folder / TEMPLATE, atoms, format="extxyz", columns=["symbols", "positions"], write_results=False)
    write_atomic(folder / START, _start(atoms))
    write_atomic(folder / INPUT, _input(path, atoms, run))
    return folder / INPUT


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
    head = "" if run.head is None else f", head: {run.head}"
    _add(field, "parameters", f"{{model: {model}, template: {TEMPLATE}, dtype: {run.dtype}{head}}}")
    system = Xml.SubElement(root, "system")
    start = Xml.SubElement(system, "initialize", nbeads=str(run.beads))
    _add(start, "file", START, mode="xyz")
    masses = ", ".join(f"{mass:.6f}" for mass in atoms.get_masses())
    _add(start, "masses", f"[ {masses} ]", mode="manual", units="dalton")
    _add(start, "velocities", f"{run.temperature:g}", mode="thermal", units="kelvin")
    Xml.SubElement(Xml.SubElement(system, "forces"), "force", forcefield="mlipjax")
    dynamics = Xml.SubElement(Xml.SubElement(system, "motion", mode="dynamics"), "dynamics", mode=run.ensemble)
    _add(dynamics, "timestep", f"{run.timestep_for(atoms):g}", units="femtosecond")
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
