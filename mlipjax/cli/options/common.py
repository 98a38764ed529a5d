"""Options of many commands, each with one meaning."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from mlipjax.defaults import Precision

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """Head of a model, and precision.

    Attributes:
        head: name of the energy head; by default the model's first.
        dtype: precision of the network.
    """

    head: str | None = None
    dtype: Literal["float32", "float64"] = "float32"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Products:
    """Products of a network.

    Attributes:
        precision: of the network's float32 products on GPUs and TPUs: in full, or faster with "high" (forces err by
            1 meV/Å rms on GPUs, 0.01 on TPUs) or "default" (1 and 6 meV/Å). On CPUs all three are the same.
    """

    precision: Precision = "highest"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batches:
    """Sizes of batches.

    Attributes:
        batch_size: structures computed together.
        max_slots: padded atoms times neighbour slots computed at once; by default as many as the memory of the device
            holds (65 536 on CPUs); lower it if memory runs out.
    """

    batch_size: int = 8
    max_slots: int | None = None


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
