"""Options of ``mlipjax periodic``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar, Literal

import tyro

from mlipjax.cli.options.common import LABELS, Computes, LabelOptions, Sections
from mlipjax.settings import PeriodicSettings


@dataclasses.dataclass(frozen=True)
class Periodic(Computes):
    """Simulate, label, fine-tune and drive on; the same command again resumes a run that was stopped.

    Every round the model drives molecular dynamics, the oracle labels frames along it, and the model is trained on all
    labels so far. Labels are kept in OUT/labels.db before they are used, and are never computed twice. At the end
    OUT/model is a --model, OUT/frames.extxyz holds the labelled frames, and OUT/report.html says how it went.

    All options may stand in one TOML file: mlipjax periodic run.toml. There structures can have settings of their own.

    Attributes:
        model: name, .nqx or .model file or saved folder to start from.
        structure: where trajectories start: files that ASE reads, of any sizes, elements and periodicities; of several
            frames in a file the last one. Masses and fixed atoms (FixAtoms, move_mask) are honoured; velocities are
            drawn.
        oracle: source of the labels: xtb, cp2k:functional=..,cutoff=.. (density functional theory), teacher:MODEL,
            ase:module:factory (any ASE calculator), lj:sigma=..,epsilon=.. or sw.
        out: folder of the run.
        data: labelled frames from before, of the oracle's level of theory, to train on too: files like those of
            mlipjax finetune --train.
        labels: names of the labels in these files.
        settings: everything else.
        head: name of the energy head that is trained; by default the model's first.
        dispersion: what the labels contain, as d3bj:FUNCTIONAL: it is taken off them before training, and added to the
            model in its MD; use the result with --dispersion.
        workers: processes that label; by default one per core.
        executor: where to label instead: local[:N], dask:ADDRESS, submitit:FOLDER (Slurm), executorlib[:N] or
            module:factory, each followed by settings such as ,jobs=4,timeout=3600,threads=8.
        log: beside history.jsonl also write metrics.csv ("csv"), event files ("tensorboard") or a run of Weights &
            Biases ("wandb"): errors of rounds and losses.
        spec: TOML file of options, which can also be named before all of them; OUT/run.toml is the one of a run.
        write_spec: write these options to a TOML file, each with what it means, and do nothing else.
    """

    sections: ClassVar[Sections] = {
        "main options": (
            "spec write_spec model structure data oracle out rounds labels_per_round steps train_steps temperature "
            "strategy "
            "learning_rate e0s"
        ),
        "molecular dynamics": "replicas ensemble pressure timestep on_alarm",
        "which frames are labelled": "select sample_factor",
        "training and labels": (
            f"head dispersion optimizer batch_size age_weight workers executor asynchronous log seed {LABELS}"
        ),
        "strategies": (
            "freeze_layers layer_decay layer_multipliers l2sp ewc lora_rank lora_radial replay replay_size "
            "replay_weight"
        ),
        "when to stop": "until_force_rmse until_alarm_rate",
    }

    model: str
    oracle: str
    out: Path
    structure: tuple[Path, ...] = ()
    data: tuple[Path, ...] = ()
    labels: tyro.conf.OmitArgPrefixes[LabelOptions] = dataclasses.field(default_factory=LabelOptions)
    settings: tyro.conf.OmitArgPrefixes[PeriodicSettings] = dataclasses.field(default_factory=PeriodicSettings)
    head: str | None = None
    dispersion: str | None = None
    workers: int | None = None
    executor: str | None = None
    log: tuple[Literal["csv", "tensorboard", "wandb"], ...] = ()
    spec: Path | None = None
    write_spec: Path | None = None
