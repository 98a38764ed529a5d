"""Options of ``mlipjax slide``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

from mlipjax.cli.options.common import Computes, Network, Sections
from mlipjax.defaults import BOND_FACTOR


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
