"""Options of ``mlipjax distill``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

import tyro

from mlipjax.cli.options.common import Computes, Sections
from mlipjax.settings import DISTILLATION, FinetuneSettings, SamplingSettings


@dataclasses.dataclass(frozen=True)
class Distill(Computes):
    """Train a small model on labels of a large one; the same command again resumes a run that was stopped.

    The teacher labels the structures given, strained and rattled copies of them, and frames of molecular dynamics that
    starts from them. Labels stand in OUT/labels.db before they are used, and none is computed twice. At the end
    OUT/student is a --model, OUT/labelled holds the data, and OUT/report.html says how far the student is from its
    teacher, how fast, and how stable.

    Attributes:
        teacher: name, .nqx or .model file, saved folder or ase:module:factory.
        structures: what the student will be used for: files that ASE reads, labels are not needed; or "generated", for
            structures made from --elements alone.
        out: folder of the run.
        student: "small" (32x0e + 16x1o + 8x2e, 3 layers, 4.5 Å) or "medium" (64x0e + 32x1o + 16x2e, 5 Å); a JSON file
            of settings (hidden_irreps, n_layers, cutoff, ...); or a model, whose architecture is taken, and with
            another --strategy than scratch its parameters as well.
        head: name of the teacher's energy head; by default the first.
        crystal: a crystal whose lattice, elastic constants and phonons are compared.
        barrier: files with both ends of a path, or the whole, whose barrier is compared.
        sampling: structures and tests.
        settings: training.
    """

    sections: ClassVar[Sections] = {
        "main options": "teacher structures student out temperatures epochs",
        "structures": "elements generated trajectories frames frame_spacing driver rattles rattle strain products",
        "tests": "test_fraction test_ps crystal barrier",
        "training": (
            "strategy learning_rate optimizer batch_size loss energy_weight forces_weight stress_weight hvp_weight "
            "clip ema_decay valid_fraction patience e0s seed dtype"
        ),
    }

    teacher: str
    structures: tuple[str, ...]
    out: Path
    student: str = "small"
    head: str | None = None
    crystal: tuple[Path, ...] = ()
    barrier: tuple[Path, ...] = ()
    sampling: tyro.conf.OmitArgPrefixes[SamplingSettings] = dataclasses.field(default_factory=SamplingSettings)
    settings: tyro.conf.OmitArgPrefixes[FinetuneSettings] = dataclasses.field(default_factory=lambda: DISTILLATION)
