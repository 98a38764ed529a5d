"""Options of many commands, each with one meaning."""

from __future__ import annotations

import dataclasses
from pathlib import Path

Sections = dict[str, str]
"""Headings of a command's help and the names of the options under them, the main ones first; others come last."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reports:
    """Form of the results.

    Attributes:
        json: also write the results to this file.
        quiet: print errors, warnings and notes alone; results go to files.
    """

    json: Path | None = None
    quiet: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Computes(Reports):
    """Device to compute on, and form of the results.

    Attributes:
        device: auto (an accelerator if JAX sees one), cpu, gpu or tpu: all devices of that kind share the work; or
            one of them, as gpu:1. One that is not there is an error.
    """

    device: str = "auto"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spreads(Computes):
    """Devices to compute on, and form of the results.

    Attributes:
        distributed: work as one of several processes, on one machine or many, which share the work: start the same
            command in each, by srun or mpirun, or with JAX_COORDINATOR_ADDRESS=HOST:PORT (of the first),
            JAX_NUM_PROCESSES and JAX_PROCESS_ID (from 0). The first one writes and prints.
    """

    distributed: bool = False


@dataclasses.dataclass(frozen=True)
class LabelOptions:
    """Names and units of labels in the files.

    Attributes:
        energy_key: name of the total energies in the files; "auto" takes energy, or a well-known name such as
            REF_energy and says so; "none" leaves energies out.
        forces_key: name of the forces; likewise.
        stress_key: name of the stresses (tension positive); likewise.
        virial_key: name of the virials (minus stress times volume), used in place of stresses; likewise.
        units: of these labels, if they are not in eV, eV/Å and eV/Å^3: pairs of energy, length, forces, stress, virial,
            positions and voigt (order of components) such as energy=Hartree,length=Bohr or stress=-kBar,voigt=vasp, or
            a name for all (atomic, rydberg, vasp, real, gromacs); docs/files.md has them all.
    """

    energy_key: str = "auto"
    forces_key: str = "auto"
    stress_key: str = "auto"
    virial_key: str = "auto"
    units: str = "ase"


LABELS = "energy_key forces_key stress_key virial_key units"
"""Names of these options, for the sections of a command's help."""
