"""Options of ``mlipjax probe``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from mlipjax.cli.options.common import LABELS, Computes, LabelOptions, Sections

Name = Literal[
    "eos", "elastic", "gamma", "phonons", "vacancy", "dimer", "softening", "rdf", "diffusion", "vdos", "events", "order"
]


@dataclasses.dataclass(frozen=True)
class Probe(Computes):
    """Run one probe and say its verdict.

    A model and a structure: eos (equation of state), elastic, gamma (modes at Gamma, exact), phonons, vacancy. A model
    and elements: dimer. A model and labelled structures: softening. A trajectory alone: rdf, diffusion, vdos, events,
    order.

    Attributes:
        name: which probe.
        model: name, .nqx file or saved folder; or ase:module:factory.
        head: name of the model's energy head; by default its first.
        structure: file with the structure, relaxed beforehand where the probe needs it.
        data: labelled structures, for softening.
        labels: names of the labels in that file.
        trajectory: frames of a simulation.
        run: replica of the trajectory, where its frames say "run": a name or number; by default the only one, or 0.
        spacing_ps: ps between frames; by default what the frames say.
        repeat: supercell, for phonons; by default the smallest one that holds twice the model's cutoff, in the shortest
            lattice vectors of the primitive cell.
        phonopy: also write force constants to this file, as a phonopy.yaml, for phonons.
        site: atom that is taken out, for vacancy.
        reservoirs: energy in eV that an atom of each element has where it goes, for a vacancy in a compound, such as
            O -4.9; an element's own crystal needs none.
        elements: symbols, for dimer (by default those of the structure) and events (by default all).
        cutoff: Å, longest distance for rdf (by default 6), or end of the first shell for order (by default the first
            minimum of g(r)).
        figure: also draw the result into this PNG.
    """

    sections: ClassVar[Sections] = {
        "main options": "name model structure data trajectory figure",
        "of some probes": "elements repeat phonopy site cutoff run spacing_ps",
        "labels": LABELS,
    }

    name: Annotated[Name, tyro.conf.Positional]
    model: str | None = None
    head: str | None = None
    structure: Path | None = None
    data: tuple[Path, ...] = ()
    labels: tyro.conf.OmitArgPrefixes[LabelOptions] = dataclasses.field(default_factory=LabelOptions)
    trajectory: Path | None = None
    run: str | None = None
    spacing_ps: float | None = None
    repeat: tuple[int, int, int] | None = None
    phonopy: Path | None = None
    site: int = 0
    reservoirs: dict[str, float] = dataclasses.field(default_factory=dict)
    elements: tuple[str, ...] = ()
    cutoff: float | None = None
    figure: Path | None = None
