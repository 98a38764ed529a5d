"""The minimum-energy path and barrier between two structures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlipjax.data.constraints import free_coordinates
from mlipjax.defaults import SPRING
from mlipjax.notices import notice, say_unused
from mlipjax.probes import NEBResult
from mlipjax.probes import neb as relax_band
from mlipjax.relaxation import OnStep
from mlipjax.system import System, with_results
from mlipjax.verbs.inputs import ModelLike, Structures, check_known, iterate_computable, open_native, paths_in

if TYPE_CHECKING:
    from ase import Atoms


def neb(
    model: ModelLike,
    images: Structures,
    *,
    n_images: int | None = None,
    interpolation: str = "idpp",
    fmax: float = 0.05,
    climb: bool = True,
    relax_ends: bool = True,
    spring: float = SPRING,
    steps: int = 500,
    head: str | None = None,
    dtype: str = "float32",
    on_step: OnStep | None = None,
) -> NEBResult:
    """Find the minimum-energy path of a model between two structures, and the barrier on it (climbing image).

    Both ends are relaxed first, so that the barrier is the model's own; the energies of the images as they are given
    are reported as well. Atoms that the first image fixes stay where they are.

    Args:
        model: what ``mlipjax.load`` takes or returns.
        images: both ends or a whole path, in order: a list of ``Atoms``, or files of them.
        n_images: images of the band, ends included; by default 7 between two ends, or as many as given.
        interpolation: how the path starts when only its ends are given: "idpp" or "linear".
        fmax: eV/Å, largest force at which an image is converged.
        climb: whether the highest image climbs to the saddle point.
        relax_ends: whether both ends are relaxed first.
        spring: eV/Å^2, between images along the path.
        steps: evaluations at most, of the ends and of the band each.
        head: name of the energy head; by default the first.
        dtype: precision of the network, "float32" or "float64".
        on_step: for progress bars: is told the number of evaluations and the largest force.

    Returns:
        Barriers, energies and images; ``verdict`` says what speaks against them, ``figure`` draws the path.

    Raises:
        ValueError, FileNotFoundError: if model, images or options cannot be used.
        ProbeDiverged: if energies are not finite.

    Examples:
        >>> import mlipjax
        >>> from ase.build import molecule
        >>> ammonia = molecule("NH3")
        >>> turned = ammonia.copy()
        >>> turned.positions[:, 2] *= -1.0
        >>> band = mlipjax.neb("universal", [ammonia, turned], n_images=5, fmax=0.2)
        >>> band.converged, bool(0.0 < band.barrier_eV < 1.0)
        (True, True)
    """
    systems, free = read_images(images)
    if len(systems) > 2:
        say_unused("a whole path is given", interpolation=(interpolation, "idpp"))
    opened = open_native(model, head)
    check_known(opened, images, systems[0].atomic_numbers)
    return relax_band(
        opened.model,
        systems,
        n_images=n_images,
        interpolation=interpolation,
        fmax=fmax,
        climb=climb,
        relax_ends=relax_ends,
        spring=spring,
        free=free,
        max_steps=steps,
        head=opened.head,
        dtype=dtype,
        on_step=on_step,
    )


def read_images(images: Structures) -> tuple[list[System], np.ndarray | None]:
    """Take all images in order, and the coordinates (n, 3) that the first leaves free (``None`` for all).

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if one cannot be read, atoms of one coincide, there is no image, or the constraints are of an
            unknown kind.
    """
    frames, paths = [atoms for atoms, _ in iterate_computable(images)], paths_in(images)
    if not frames:
        raise ValueError("found no structure in the images given.")
    first = paths[0] if paths else "image 0"
    try:
        free, others = free_coordinates(frames[0]), [free_coordinates(atoms) for atoms in frames[1:]]
    except ValueError as error:
        raise ValueError(f"{first}: {error}") from error
    if any(other is not None and (free is None or not np.array_equal(free, other)) for other in others):
        named = f"the first frame of {first}" if paths else first
        notice(f"images fix different atoms; those that {named} fixes are the ones that stay.")
    return [System.from_ase(atoms) for atoms in frames], free


def images_of(result: NEBResult) -> list[Atoms]:
    """The images of a band with their energies; ``info`` says place and largest force."""
    frames = []
    for index, system in enumerate(result.images):
        atoms = system.to_ase()
        atoms.info = {
            "image": index,
            "distance_A": float(result.distance_A[index]),
            "fmax_eV_per_A": float(result.image_fmax_eV_per_A[index]),
        }
        frames.append(with_results(atoms, energy=float(result.energies_eV[index])))
    return frames
