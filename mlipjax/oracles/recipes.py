"""ASE calculators of DFT codes with settings that are good for labels: a start for a factory of one's own.

    # my_codes.py; then --oracle ase:my_codes:pbe
    from mlipjax.oracles import recipes

    def pbe():
        return recipes.espresso({"O": "O.pbe.UPF", "H": "H.pbe.UPF"}, pseudo_dir="/data/pseudo")

What they share: forces and stress in the same run, a cycle that ends where forces are right to about 1 meV/Å, no use of
symmetry (frames of dynamics have none), k-points by their distance, so that cells of all sizes are sampled alike, and
no files that nobody reads. Cutoffs are those usual for the code's standard potentials: converge them for yours. More
arguments are the calculator's own, and take precedence. CP2K has an oracle of its own (``Cp2k``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any


def gpaw(cutoff: float = 500.0, **more: Any) -> Any:
    """Return GPAW with PBE in plane waves, without which it has no stress.

    Args:
        cutoff: eV; oxides need 550.
        more: arguments of ``GPAW``.
    """
    from gpaw import GPAW, PW  # pyright: ignore[reportMissingImports]

    settings = {
        "xc": "PBE",
        "kpts": {"density": 3.5, "gamma": True},
        "convergence": {"density": 1e-5, "forces": 1e-3},
        "symmetry": "off",
        "txt": None,
    }
    return GPAW(**{"mode": PW(cutoff), **settings, **more})


def espresso(
    pseudopotentials: Mapping[str, str],
    *,
    pseudo_dir: str | os.PathLike[str],
    command: str = "pw.x",
    cutoff: float = 60.0,
    kspacing: float | None = 0.25,
    **more: Any,
) -> Any:
    """Return Quantum ESPRESSO with the functional of its pseudopotentials.

    Args:
        pseudopotentials: file by element, those of SSSP for instance.
        pseudo_dir: folder that holds them.
        command: the program, with MPI in front if wanted.
        cutoff: of the wave functions, Ry; eight times that for the density, as ultrasoft and PAW potentials need.
        kspacing: 1/Å between k-points; ``None`` for Gamma alone.
        more: namelist variables of ``pw.x``.
    """
    from ase.calculators.espresso import Espresso, EspressoProfile

    settings = {
        "tprnfor": True,
        "tstress": True,
        "disk_io": "none",
        "ecutwfc": cutoff,
        "ecutrho": 8.0 * cutoff,
        "conv_thr": 1e-9,
        "mixing_beta": 0.4,
        "electron_maxstep": 200,
        "nosym": True,
        "occupations": "smearing",
        "smearing": "gaussian",
        "degauss": 0.005,
    }
    return Espresso(
        profile=EspressoProfile(command=command, pseudo_dir=os.fspath(pseudo_dir)),
        pseudopotentials=dict(pseudopotentials),
        kspacing=kspacing,
        input_data={**settings, **more},
    )


def vasp(**more: Any) -> Any:
    """Return VASP with PBE and the potentials that ``VASP_PP_PATH`` names, run by ``ASE_VASP_COMMAND``.

    Args:
        more: arguments of ``Vasp``, INCAR tags in small letters. For labels that join the Materials Project's take
            ``setups="materialsproject"`` and its +U.
    """
    from ase.calculators.vasp import Vasp

    settings = {
        "xc": "PBE",
        "encut": 520.0,
        "prec": "Accurate",
        "ediff": 1e-6,
        "nelm": 200,
        "algo": "Normal",
        "ismear": 0,
        "sigma": 0.05,
        "lreal": False,
        "lasph": True,
        "kspacing": 0.25,
        "kgamma": True,
        "isym": 0,
        "nsw": 0,
        "ibrion": -1,
        "isif": 2,
        "lwave": False,
        "lcharg": False,
    }
    return Vasp(**{**settings, **more})


def aims(
    species_dir: str | os.PathLike[str], *, command: str = "aims.x", kspacing: float | None = 0.25, **more: Any
) -> Any:
    """Return FHI-aims with PBE and numeric atom-centred orbitals.

    Args:
        species_dir: folder of basis sets, such as ``species_defaults/defaults_2020/intermediate``.
        command: the program, with MPI in front if wanted.
        kspacing: 1/Å between k-points; ``None`` for molecules.
        more: keywords of control.in.
    """
    from ase.calculators.aims import Aims, AimsProfile

    periodic = {}
    if kspacing is not None:
        periodic = {
            "k_grid_density": 1.0 / kspacing,
            "compute_analytical_stress": True,
            "symmetry_reduced_k_grid": False,
        }
    settings = {
        "xc": "pbe",
        "relativistic": "atomic_zora scalar",
        "compute_forces": True,
        "sc_accuracy_rho": 1e-6,
        "sc_accuracy_forces": 1e-4,
        "sc_iter_limit": 200,
    }
    profile = AimsProfile(command=command, default_species_directory=os.fspath(species_dir))
    return Aims(profile=profile, **{**settings, **periodic, **more})


def orca(command: str = "orca", *, method: str = "PBE def2-TZVP def2/J", **more: Any) -> Any:
    """Return ORCA for molecules.

    Args:
        command: the program, by its full path if it runs in parallel.
        method: functional, basis set, and what else the first line says.
        more: ``charge``, ``mult`` and ``orcablocks`` of ``ORCA``.
    """
    from ase.calculators.orca import ORCA, OrcaProfile

    settings = {"charge": 0, "mult": 1, "orcablocks": "%pal nprocs 1 end\n%scf maxiter 300 end"}
    line = f"{method} EnGrad TightSCF DefGrid3"
    return ORCA(profile=OrcaProfile(command=command), orcasimpleinput=line, **{**settings, **more})
