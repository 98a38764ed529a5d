"""Options of commands that train a model, and of those before and after: doctor and calibrate."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar, Literal

import tyro

from mlipjax.cli.options.common import LABELS, Batches, Computes, LabelOptions, Network, Products, Sections, Spreads
from mlipjax.settings import DISTILLATION, FinetuneSettings, PeriodicSettings, PropertySettings, SamplingSettings

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


@dataclasses.dataclass(frozen=True)
class Doctor(Computes, Batches, Network):
    """Check whether fine-tuning a model on labelled structures makes sense; fatal findings exit non-zero.

    Attributes:
        model: name, .nqx file or saved folder to start from.
        train: labelled structures to train on: files of any format that ASE reads (extended xyz, ASE database, OUTCAR,
            vasprun.xml, ...), slices such as FILE@:100, patterns, folders, or a folder of mlipjax convert --data.
        valid: labelled structures for validation, if there are any; likewise.
        test: labelled structures for testing, if there are any.
        replay: structures to replay with labels of the model's own level of theory, if there are any.
        anchor: structures of the model's own level to measure the retained error on, if there are any.
        labels: names of the labels in the files.
        e0s: isolated-atom energies: a JSON file, "estimate" (least squares against the model), "isolated" (of the
            isolated atoms in the training set) or "model" (as is).
        dtype: precision of training.
    """

    sections: ClassVar[Sections] = {
        "main options": "model train valid test replay anchor e0s",
        "labels": LABELS,
    }

    model: str
    train: tuple[Path, ...]
    valid: tuple[Path, ...] = ()
    test: tuple[Path, ...] = ()
    replay: tuple[Path, ...] = ()
    anchor: tuple[Path, ...] = ()
    labels: tyro.conf.OmitArgPrefixes[LabelOptions] = dataclasses.field(default_factory=LabelOptions)
    e0s: str = "model"


@dataclasses.dataclass(frozen=True)
class Calibrate(Computes, Batches, Products, Network):
    """Give a model error bars, calibrated on structures that it was not trained on, and save them in its folder.

    evaluate and predict then take --uncertainty llpr (the posterior of the last layer, exact), shallow (draws from it,
    cheaper) or committee (this model and --members).

    Attributes:
        model: saved folder; or a name or file, with --out.
        valid: labelled structures that it was not trained on, best of several trajectories: each counts once.
        train: structures that it was trained on, for the posterior of its last layer; their labels are not looked at.
        members: saved models instead, fine-tuned like this one from other seeds: with it they are a committee.
        labels: names of the labels in the files of --valid.
        moves: random moves per training structure that stand for its forces in the posterior; 0 for energies alone.
        seed: of these moves.
        out: folder for the model and its error bars; by default that of the model.
    """

    sections: ClassVar[Sections] = {
        "main options": "model train valid members out head",
        "labels": LABELS,
    }

    model: str
    valid: tuple[Path, ...]
    train: tuple[Path, ...] = ()
    members: tuple[Path, ...] = ()
    labels: tyro.conf.OmitArgPrefixes[LabelOptions] = dataclasses.field(default_factory=LabelOptions)
    moves: int = 4
    seed: int = 0
    out: Path | None = None
