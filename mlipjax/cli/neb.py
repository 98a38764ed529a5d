"""``mlipjax neb``: the minimum-energy path and barrier between two structures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mlipjax import runtime
from mlipjax.cli.heads import choose_head
from mlipjax.cli.options.neb import Neb
from mlipjax.cli.output import make_console, write_json
from mlipjax.cli.progress import Working
from mlipjax.cli.tables import Table
from mlipjax.data import read_atoms
from mlipjax.data.constraints import free_coordinates
from mlipjax.files import replace_on_success
from mlipjax.models import load
from mlipjax.notices import notice
from mlipjax.probes import NEBResult, neb
from mlipjax.report import save_figure
from mlipjax.system import System


def run(command: Neb) -> None:
    """Relax the band and print barrier and images.

    Raises:
        ValueError, FileNotFoundError: if model, images or options cannot be used.
        ProbeDiverged: if energies become NaN or infinite.
    """
    runtime.select_dtype(command.dtype)
    systems, free = read_images(command.images)
    potential, params = load(command.model)
    console = make_console()
    with Working(console, "compiling and relaxing") as working:
        result = neb(
            potential,
            params,
            systems,
            n_images=command.n_images,
            interpolation=command.interpolation,
            fmax=command.fmax,
            climb=command.climb,
            relax_ends=command.relax_ends,
            spring=command.spring,
            free=free,
            max_steps=command.steps,
            head=choose_head(potential, command.head),
            dtype=command.dtype,
            on_step=lambda step, force: working.say(f"evaluation {step}: largest force {force:.3f} eV/Å"),
        )
    console.print(_table(result))
    console.print(result.verdict)
    if command.out is not None:
        write_images(command.out, result)
    if command.figure is not None:
        save_figure(result.figure(), command.figure)
    report = result.as_dict() | {
        "model": command.model,
        "dtype": command.dtype,
        "n_images": len(result.energies_eV),
        "relative_energies_eV": result.energies_eV - result.energies_eV[0],
        "relative_fixed_path_energies_eV": result.fixed_path_energies_eV - result.fixed_path_energies_eV[0],
    }
    write_json(command.json, report)


def read_images(paths: Sequence[Path]) -> tuple[list[System], np.ndarray | None]:
    """Read all frames of all files, and the coordinates (n, 3) that the first leaves free (``None`` for all).

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if ASE cannot read one, or the constraints are of an unknown kind.
    """
    frames = [atoms for path in paths for atoms in read_atoms(path)]
    if not frames:
        raise ValueError("found no structure in the files given.")
    try:
        free, others = free_coordinates(frames[0]), [free_coordinates(atoms) for atoms in frames[1:]]
    except ValueError as error:
        raise ValueError(f"{paths[0]}: {error}") from error
    if any(other is not None and (free is None or not np.array_equal(free, other)) for other in others):
        notice(f"images fix different atoms; those that the first frame of {paths[0]} fixes are the ones that stay.")
    return [System.from_ase(atoms) for atoms in frames], free


def write_images(path: Path, result: NEBResult) -> None:
    """Write the images as extended xyz with their energies."""
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import write

    frames = []
    for index, system in enumerate(result.images):
        atoms = system.to_ase()
        atoms.info = {
            "image": index,
            "distance_A": float(result.distance_A[index]),
            "fmax_eV_per_A": float(result.image_fmax_eV_per_A[index]),
        }
        atoms.calc = SinglePointCalculator(atoms, energy=float(result.energies_eV[index]))
        frames.append(atoms)
    with replace_on_success(path) as temporary:
        write(temporary, frames, format="extxyz")


def _table(result: NEBResult) -> Table:
    energies, given = (values - values[0] for values in (result.energies_eV, result.fixed_path_energies_eV))
    rows = [
        (
            str(index),
            f"{result.distance_A[index]:.3f}",
            f"{energies[index]:.4f}",
            f"{given[index]:.4f}",
            f"{result.image_fmax_eV_per_A[index]:.3f}",
            "yes" if result.image_converged[index] else "no",
        )
        for index in range(len(energies))
    ]
    return Table(("image", "path (Å)", "energy (eV)", "as given (eV)", "fmax (eV/Å)", "converged"), rows)
