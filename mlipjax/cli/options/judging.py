"""Options of commands that say what a model gives for structures, and how far it can be trusted."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar, Literal

import tyro

from mlipjax.cli.options.common import LABELS, Batches, Computes, LabelOptions, Network, Products, Sections, Spreads
from mlipjax.defaults import COMPONENTS


@dataclasses.dataclass(frozen=True)
class Evaluate(Spreads, Batches, Products, Network):
    """Compare a model's energies, forces and stresses with labels.

    Attributes:
        model: name, .nqx file or saved folder; ase:module:factory for a foreign calculator.
        data: labelled structures: files of any format that ASE reads (extended xyz, ASE database, OUTCAR, vasprun.xml,
            ...), slices such as FILE@:100, patterns, folders, or a folder of mlipjax convert --data.
        labels: names of the labels in the files.
        property: structures and a number for each instead, as FILE:KEY, for a model that predicts it.
        uncertainty: also compare error bars with errors: llpr, shallow, shallow:MEMBERS or committee, of a model that
            mlipjax calibrate gave error bars.
        monitor: a monitor.npz of the model, whose indices are then compared with the error bars.
        dispersion: added to the model, as d3bj:FUNCTIONAL; refused where its labels contain it already.
        write: also write every structure with labels, predictions and errors to this file (extended xyz).
        out: also write report.html with parity plots, and results.json, to this folder.
    """

    sections: ClassVar[Sections] = {
        "main options": "model data property head uncertainty monitor write out",
        "labels": LABELS,
    }

    model: str
    data: tuple[Path, ...] = ()
    labels: tyro.conf.OmitArgPrefixes[LabelOptions] = dataclasses.field(default_factory=LabelOptions)
    property: str | None = None
    uncertainty: str | None = None
    monitor: Path | None = None
    dispersion: str | None = None
    write: Path | None = None
    out: Path | None = None


@dataclasses.dataclass(frozen=True)
class Predict(Spreads, Batches, Products, Network):
    """Predict energies, forces and stresses of structures; labels are not needed, and not used.

    The file written is extended xyz with energy (eV), forces (eV/Å), energies per atom (eV), stress (eV/Å^3, tension
    positive) where there is a volume, and the model's name: ASE, OVITO and others read it. A file of any size is read
    and written structure by structure.

    Attributes:
        model: name, .nqx or .model file or saved folder; or ase:module:factory.
        data: structures: files of any format that ASE reads (extended xyz, POSCAR, cif, trajectories, ...), slices
            such as FILE@:100, patterns, folders.
        write: file to write (.extxyz, .xyz; also .gz or .xz).
        features: also write the features of every atom, as the column features.
        uncertainty: also write standard deviations, as energy_std (eV) and the columns energies_std and forces_std
            (eV/Å): llpr, shallow, shallow:MEMBERS or committee, of a model that mlipjax calibrate gave error bars.
        dispersion: added to the model, as d3bj:FUNCTIONAL; refused where its labels contain it already.
    """

    model: str
    data: tuple[Path, ...]
    write: Path | None = None
    features: bool = False
    uncertainty: str | None = None
    dispersion: str | None = None


@dataclasses.dataclass(frozen=True)
class Monitor(Computes):
    """Fit control charts to reference frames, and say which frames of other data are out of control.

    Frames of a file that carry "run" (as those of mlipjax md) or another group are taken as trajectories.

    Attributes:
        model: name, .nqx file or saved folder.
        reference: frames the model can be trusted on, best several runs of equilibrium MD; or a monitor.npz that this
            command saved.
        data: frames to judge.
        level: probability of a false alarm, 0.01 for one frame in a hundred.
        components: principal components per element.
        layers: features of the last layer, which the energy is read from, or of all layers.
        calibration: "split": charts from the first half of the reference runs, limits from the second, with the
            level guaranteed; "cross": every run is judged by charts of the others, which scatters less where there
            are few runs, for a weaker guarantee (twice the level).
        index: the number of a frame that decides.
        dtype: precision of the network.
        batch_size: structures computed together.
        out: also save the fitted monitor and a figure in this folder.
    """

    model: str
    reference: tuple[Path, ...]
    data: tuple[Path, ...]
    level: float = 0.01
    components: int = COMPONENTS
    layers: Literal["last", "all"] = "last"
    calibration: Literal["split", "cross"] = "split"
    index: Literal["q", "t2", "combined", "worst"] = "combined"
    dtype: Literal["float32", "float64"] = "float32"
    batch_size: int = 16
    out: Path | None = None


@dataclasses.dataclass(frozen=True)
class CompareRepresentations(Computes):
    """Compare the features of the same atoms in two or more models, or along one or more fine-tunes.

    Classes are elements by their number of bonds (C4, C3, ..., H, O2, ...). Every number has a 95 % interval over
    structures; the report says what each can and cannot show.

    Attributes:
        data: structures (no labels are needed).
        model: name, .nqx file or saved folder; give it two or more times, the model before fine-tuning first.
        run: instead of models, the folder of a fine-tune made with --snapshots N: the model before its first step, its
            snapshots and the model that was kept, and a figure of every number against the optimiser step. May be
            given again; all are compared with the first model of the first run.
        old: structures the first model was made for: how far they leave the charts of --data in every model.
        layer: whose features, counted from the bottom (0, 1, ...) or the top (-1, -2, ...).
        kind: features of atoms ("nodes"), messages between them ("edges"), or both.
        pairs: pairs of atoms of every structure, for edges.
        max_atoms: structures are drawn up to this many atoms: time grows with its square.
        resamples: half-samples of the structures for the intervals.
        tsne_seeds: random starts of t-SNE; by default 3 for models, and 0 (no t-SNE) for the many of runs. Pairs get
            maps with --kind edges only.
        perplexities: of t-SNE.
        components: of PCA subspaces and charts.
        seed: of structures, pairs and half-samples.
        dtype: precision of the networks.
        batch_size: structures computed together.
        out: folder for report.html, results.json, figures and the table.
    """

    sections: ClassVar[Sections] = {
        "main options": "model run data old kind layer out",
        "statistics": "max_atoms pairs resamples components tsne_seeds perplexities seed",
    }

    data: tuple[Path, ...]
    model: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    run: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    old: Path | None = None
    layer: int = -1
    kind: Literal["nodes", "edges", "both"] = "both"
    pairs: int = 16
    max_atoms: int = 2000
    resamples: int = 100
    tsne_seeds: int | None = None
    perplexities: tuple[float, ...] = (10.0, 30.0)
    components: int = 5
    seed: int = 0
    dtype: Literal["float32", "float64"] = "float32"
    batch_size: int = 16
    out: Path | None = None
