"""Options of ``mlipjax finetune``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar, Literal

import tyro

from mlipjax.cli.options.common import LABELS, LabelOptions, Sections, Spreads
from mlipjax.settings import FinetuneSettings, PropertySettings

_PROPERTY = " ".join(field.name for field in dataclasses.fields(PropertySettings))


@dataclasses.dataclass(frozen=True)
class Finetune(Spreads):
    """Fine-tune a model on labelled structures; the same command again resumes a run that was stopped.

    With --property the model gets a head for a number per structure instead, by --strategy scratch, ft (all
    parameters), lp (the head alone) or mft (together with the force field, on --replay structures).

    Attributes:
        model: name, .nqx file or saved folder to start from.
        out: folder of the run; at the end a model itself.
        train: labelled structures: files of any format that ASE reads (extended xyz, ASE database, OUTCAR, vasprun.xml,
            ...), slices such as FILE@:100, patterns, folders, or a folder of mlipjax convert --data, from which only
            what a batch needs is read; files of other options may be all that too.
        labels: names of the labels in the files of --train and --valid.
        property: structures and a number for each instead, as FILE:KEY: an array of an .npz file, or information in
            any file that ASE reads.
        valid: structures for validation, like those of training; by default a part of them (labelled structures by
            trajectory).
        hvp: Hessian-vector products to train on beside energies and forces, for phonons: files with the arrays
            hvp_probe and hvp (eV/Å^2); files of structures displaced against each other by less than 0.1 Å, with
            forces; or teacher:MODEL, which gives products of all structures with random probes.
        head: name of the energy head that is trained, with its isolated-atom energies; by default the model's first. It
            is the first of the result.
        dispersion: what the labels contain, as d3bj:FUNCTIONAL: it is taken off before training, and the model is used
            with --dispersion afterwards.
        committee: members of a committee, which gives the model error bars (--uncertainty committee): the fine-tune
            itself and more of them from other seeds, in one program and without resuming, calibrated on the
            structures for validation. A run that is done can be given one.
        log: beside metrics.jsonl also write metrics.csv ("csv"), event files ("tensorboard") or a run of Weights &
            Biases ("wandb", with WANDB_MODE=offline on the disk alone).
        settings: everything else.
        task: of the property.
    """

    sections: ClassVar[Sections] = {
        "main options": "model train valid out strategy epochs learning_rate batch_size e0s replay",
        "data": f"{LABELS} hvp head dispersion valid_fraction allow_e0_mismatch ignore",
        "strategies": (
            "auto freeze_layers layer_decay layer_multipliers l2sp ewc lora_rank lora_radial replay_size replay_weight "
            "anchor anchor_weight"
        ),
        "training": (
            "optimizer loss energy_weight forces_weight stress_weight hvp_weight clip ema_decay patience committee "
            "snapshots log seed max_slots"
        ),
        "a property instead of energies and forces": f"property {_PROPERTY}",
    }

    model: str
    out: Path
    train: tuple[Path, ...] = ()
    labels: tyro.conf.OmitArgPrefixes[LabelOptions] = dataclasses.field(default_factory=LabelOptions)
    property: str | None = None
    valid: tuple[Path, ...] = ()
    hvp: tuple[str, ...] = ()
    head: str | None = None
    dispersion: str | None = None
    committee: int = 1
    log: tuple[Literal["csv", "tensorboard", "wandb"], ...] = ()
    settings: tyro.conf.OmitArgPrefixes[FinetuneSettings] = dataclasses.field(default_factory=FinetuneSettings)
    task: tyro.conf.OmitArgPrefixes[PropertySettings] = dataclasses.field(default_factory=PropertySettings)
