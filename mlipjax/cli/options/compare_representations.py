"""Options of ``mlipjax compare-representations``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar, Literal

import tyro

from mlipjax.cli.options.common import Computes, Sections


@dataclasses.dataclass(frozen=True)
class CompareCommand(Computes):
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
