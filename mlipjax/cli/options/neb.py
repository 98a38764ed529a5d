"""Options of ``mlipjax neb``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar, Literal

from mlipjax.cli.options.common import Computes, Network, Sections
from mlipjax.defaults import SPRING


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
