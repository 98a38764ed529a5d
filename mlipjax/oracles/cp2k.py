"""Density functional theory by CP2K: Gaussian and plane waves at Gamma, a program of its own for every label.

References: VandeVondele et al., Comput. Phys. Commun. 167, 103 (2005); Kühne et al., J. Chem. Phys. 152, 194103 (2020).
Inputs are written and outputs read here rather than through ASE's calculator, whose shell does not tell a cycle that
did not converge, and hangs beyond 100 atoms in versions before 2024.2.
"""

from __future__ import annotations

import functools
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlipjax.data.cp2k import read_cp2k_output, unconverged_in_cp2k
from mlipjax.data.labels import make_labels
from mlipjax.elements import symbols
from mlipjax.files import digest
from mlipjax.system import Labels, System

_FUNCTIONALS = {
    "PBE": ("PBE", "&PBE\n&END PBE"),
    "PBEsol": ("PBE", "&PBE\nPARAMETRIZATION PBESOL\n&END PBE"),
    "revPBE": ("PBE", "&PBE\nPARAMETRIZATION REVPBE\n&END PBE"),
    "BLYP": ("BLYP", "&BLYP\n&END BLYP"),
    "LDA": ("PADE", "&PADE\n&END PADE"),
}
"""By name: the potentials that were fitted with it (or the closest one), and its section of the input."""

_BASES = ("BASIS_MOLOPT", "BASIS_MOLOPT_UCL")
_INNER, _OUTER = 25, 10
_MARGIN = 5.0  # Å around a molecule: its density must vanish at the faces of the box
_ABORT = re.compile(r"\[ABORT\](.*?)\n \*{70,}", re.DOTALL)

_INPUT = """&GLOBAL
PROJECT label
RUN_TYPE ENERGY_FORCE
PRINT_LEVEL MEDIUM
&END GLOBAL
&FORCE_EVAL
METHOD Quickstep
{stress}
&PRINT
&FORCES
NDIGITS 12
&END FORCES
&STRESS_TENSOR
&END STRESS_TENSOR
&END PRINT
&DFT
{files}
POTENTIAL_FILE_NAME GTH_POTENTIALS
WFN_RESTART_FILE_NAME guess.wfn
CHARGE {charge}
MULTIPLICITY {multiplicity}
UKS {unrestricted}
&MGRID
CUTOFF [Ry] {cutoff}
REL_CUTOFF [Ry] {relative_cutoff}
&END MGRID
&QS
EPS_DEFAULT 1.0E-10
&END QS
&POISSON
PERIODIC {periodic}
POISSON_SOLVER {solver}
&END POISSON
&SCF
SCF_GUESS {guess}
EPS_SCF {eps_scf}
MAX_SCF {inner}
&OT
MINIMIZER DIIS
PRECONDITIONER FULL_SINGLE_INVERSE
&END OT
&OUTER_SCF
EPS_SCF {eps_scf}
MAX_SCF {outer}
&END OUTER_SCF
&END SCF
&XC
&XC_FUNCTIONAL
{functional}
&END XC_FUNCTIONAL
&END XC
&END DFT
&SUBSYS
&CELL
{cell}
PERIODIC {periodic}
&END CELL
&COORD
{positions}
&END COORD
{kinds}
{centered}
&END SUBSYS
&END FORCE_EVAL
"""


@dataclass(frozen=True)
class Cp2k:
    """Labels by CP2K: total energies in eV, forces, and analytical stress of periodic systems.

    The Brillouin zone is sampled at Gamma only, so a crystal needs a supercell. Orbitals are found by orbital
    transformation, which needs a gap: what has none does not converge and is a failed label. A system that is periodic
    along some axes only is treated as periodic along all of them (leave vacuum); one that is not periodic lies in a box
    of its own, without images.

    Attributes:
        functional: PBE, PBEsol, revPBE, BLYP or LDA, with the pseudopotentials of Goedecker, Teter and Hutter.
        basis: a set of the files BASIS_MOLOPT and BASIS_MOLOPT_UCL. The default is the smallest one that is good for
            labels; TZV2P-MOLOPT-SR-GTH costs several times as much.
        cutoff: of the density's finest grid, Ry. Oxygen decides: in water its forces are off by 55 meV/Å (rms over
            all atoms) at 400, by 27 at 600, as against 1000; other elements need less.
        relative_cutoff: of the grid on which a Gaussian is put, Ry; more than 50 changed nothing in water, and from 40
            to 60 a step takes 40 % longer.
        eps_scf: where the cycle ends. Forces are then right to 1e-5 eV/Å (rms); sums of Gaussians end where that is
            enough for it (EPS_DEFAULT 1e-10).
        charge: of the system.
        multiplicity: 2 S + 1; above 1 spins are unrestricted.
        guess: "restart" begins with the orbitals of the same worker's last structure of the same atoms, which takes 14
            steps instead of 33 for water moved by 0.08 Å, and gives the same forces to ``eps_scf``; "atomic" begins
            with atoms, and a label then depends on nothing but its structure.
        threads: of OpenMP. Workers label side by side, so one is best unless there are fewer workers than cores.
        command: the program, or what starts it: ``mpirun -n 8 cp2k.psmp``.
    """

    functional: str = "PBE"
    basis: str = "DZVP-MOLOPT-SR-GTH"
    cutoff: float = 600.0
    relative_cutoff: float = 50.0
    eps_scf: float = 1e-6
    charge: int = 0
    multiplicity: int = 1
    guess: str = "restart"
    threads: int = 1
    command: str = "cp2k.psmp"

    jittable = False
    name = "cp2k"

    def __post_init__(self) -> None:
        known = {"functional": (*_FUNCTIONALS,), "guess": ("restart", "atomic")}
        for name, choices in known.items():
            if (found := getattr(self, name)) not in choices:
                raise ValueError(f"{name} is {found!r}; choose one of {', '.join(choices)}.")

    @property
    def identity(self) -> str:
        """Everything that decides the numbers; how many threads and ranks compute them does not."""
        return (
            f"cp2k:{self.functional}:{self.basis}:cutoff={self.cutoff!r}:{self.relative_cutoff!r}:eps={self.eps_scf!r}"
            f":charge={self.charge}:multiplicity={self.multiplicity}:guess={self.guess}"
        )

    def check_installed(self) -> None:
        """Raise ``ValueError`` if the program that ``command`` names is not there."""
        program = next(iter(shlex.split(self.command)), "")
        if shutil.which(program) is None:
            raise ValueError(
                f"the cp2k oracle runs the program {program!r}, which is not found; install it (Debian and Ubuntu: "
                "apt-get install cp2k cp2k-data), or name it: cp2k:command=PROGRAM."
            )

    def label(self, system: System) -> Labels:
        """Energy, forces and, for a system that is periodic along all axes, stress of one structure.

        Raises:
            ValueError: the system is periodic and has no volume.
            RuntimeError: CP2K ended with an error, in its words, or the cycle did not converge.
        """
        # of a worker and thread: nobody else writes it meanwhile
        atoms = digest(self.identity, np.asarray(system.atomic_numbers), repr(system.pbc))
        orbitals = Path(_kept().name) / f"{threading.get_ident()}-{atoms[:16]}.wfn"
        with tempfile.TemporaryDirectory(prefix="mlipjax-cp2k-") as name:
            folder = Path(name)
            restart = self.guess == "restart" and orbitals.exists()
            (folder / "label.inp").write_text(self.input(system, restart=restart), encoding="utf-8")
            if restart:  # gone from there: an attempt that fails is followed by one that begins with atoms
                shutil.move(orbitals, folder / "guess.wfn")
            self._run(folder)
            labels = self._read(folder / "label.out", system)
            if self.guess == "restart":
                with suppress(FileNotFoundError):
                    shutil.move(folder / "label-RESTART.wfn", orbitals)
        return labels

    def input(self, system: System, *, restart: bool = False) -> str:
        """The input for a structure; with ``restart`` it begins with the orbitals in ``guess.wfn``.

        Raises:
            ValueError: as ``label``.
        """
        potential, functional = _FUNCTIONALS[self.functional]
        names = symbols(np.asarray(system.atomic_numbers))
        periodic = any(system.pbc)
        kinds = (
            f"&KIND {name}\nBASIS_SET {self.basis}\nPOTENTIAL GTH-{potential}\n&END KIND" for name in sorted({*names})
        )
        return _INPUT.format(
            stress="STRESS_TENSOR ANALYTICAL" if periodic else "",
            files="\n".join(f"BASIS_SET_FILE_NAME {file}" for file in _BASES),
            charge=self.charge,
            multiplicity=self.multiplicity,
            unrestricted=self.multiplicity > 1,
            cutoff=self.cutoff,
            relative_cutoff=self.relative_cutoff,
            periodic="XYZ" if periodic else "NONE",
            solver="PERIODIC" if periodic else "WAVELET",
            guess="RESTART" if restart else "ATOMIC",
            eps_scf=self.eps_scf,
            inner=_INNER,
            outer=_OUTER,
            functional=functional,
            cell="\n".join(f"{name} {_numbers(row)}" for name, row in zip("ABC", _cell(system), strict=True)),
            positions="\n".join(
                f"{name} {_numbers(row)}" for name, row in zip(names, np.asarray(system.positions), strict=True)
            ),
            kinds="\n".join(kinds),
            centered="" if periodic else "&TOPOLOGY\n&CENTER_COORDINATES\n&END CENTER_COORDINATES\n&END TOPOLOGY",
        )

    def _run(self, folder: Path) -> None:
        """Run CP2K in a folder; on any exception (a timeout) it is ended."""
        self.check_installed()
        done = subprocess.run(
            [*shlex.split(self.command), "-i", "label.inp", "-o", "label.out"],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": str(self.threads)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
        )
        if done.returncode != 0:
            raise RuntimeError(f"CP2K ended with status {done.returncode}: {_why(folder / 'label.out', done.stderr)}")

    def _read(self, output: Path, system: System) -> Labels:
        found = next(read_cp2k_output(output), None)
        if next(unconverged_in_cp2k(output), None) is not None:
            raise RuntimeError(
                f"the SCF cycle did not converge to eps_scf={self.eps_scf:g} in {_INNER * _OUTER} steps: is there a gap"
                " (metals need another oracle), are charge and multiplicity right?"
            )
        results = {} if found is None or found.calc is None else found.calc.results
        if not {"energy", "forces"} <= set(results):
            raise RuntimeError(f"CP2K's output ends before its results: {_why(output, '')}")
        stress = results.get("stress") if all(system.pbc) else None
        return make_labels(system.n_atoms, results["energy"], results["forces"], stress)


@functools.cache
def _kept() -> tempfile.TemporaryDirectory[str]:
    """Folder of this process for orbitals, which is deleted when the process ends."""
    return tempfile.TemporaryDirectory(prefix="mlipjax-cp2k-")


def _cell(system: System) -> np.ndarray:
    """Lattice vectors (3, 3) in Å: of a system without, the cube that its solver of Poisson's equation needs."""
    if not any(system.pbc):
        positions = np.asarray(system.positions)
        return np.eye(3) * (np.ptp(positions, axis=0).max() + 2.0 * _MARGIN)
    cell = np.asarray(system.cell)
    if abs(np.linalg.det(cell)) < 1e-6:
        raise ValueError(f"pbc is {system.pbc} but the cell has no volume; CP2K needs three lattice vectors.")
    return cell


def _numbers(row: np.ndarray) -> str:
    return " ".join(f"{value:.15g}" for value in row)


def _why(output: Path, said: str) -> str:
    """Reason that CP2K gives for its end: the box around its message, or the last line."""
    text = output.read_text(encoding="utf-8", errors="replace") if output.exists() else ""
    if (box := _ABORT.search(text)) is not None:
        # a drawing stands on the left, the place in the source in the last line
        lines = [line[10:].rstrip("* ") for line in box[1].split("\n")]
        return " ".join(" ".join(lines[:-1]).split())
    lines = [line.strip() for line in (said or text).splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
