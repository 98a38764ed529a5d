"""Models of ``experiments.bias``: which are fine-tuned, how, and what they are tested on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.bias.config import Config
from experiments.lab.errors import force_squares
from experiments.lab.retained import mptrj
from experiments.lab.s0 import Arm, extrapolates, load_arms, validation_frames
from mlipjax.data import Dataset, read_dataset
from mlipjax.doctor import Compared, find_outliers
from mlipjax.files import replace_on_success
from mlipjax.finetuning import FinetuneSettings
from mlipjax.finetuning.single import finetune
from mlipjax.models import load, registry
from mlipjax.potential import Model
from mlipjax.train import LabelledBatches, error_report, estimate_e0s, predict, shift_e0s
from mlipjax.train.batches import StructurePrediction

_LARGEST_RETAINED = 40
_TO_MEV = 1e3
_FIRST_LABELS = 11


class Job(NamedTuple):
    """One fine-tune; ``arm`` is ``None`` for the start model."""

    arm: str | None
    labels: int
    seed: int
    strategy: str

    @property
    def name(self) -> str:
        """Folder of the job."""
        return "zero-shot" if self.arm is None else f"{self.arm}-{self.labels}-{self.seed}-{self.strategy}"


ZERO_SHOT = Job(None, 0, 0, "")


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model under test.

    Attributes:
        job: what made it.
        model: potential and parameters.
        train: frames it was fine-tuned on, ``None`` for the start model.
    """

    job: Job
    model: Model
    train: Dataset | None


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Data on which all models are compared.

    Attributes:
        config: resolved.
        arms: of the published system, by name.
        tests: held-out frames by name.
        retained: MPtrj structures, or ``None``.
        start: the model that is fine-tuned.
    """

    config: Config
    arms: dict[str, Arm]
    tests: dict[str, Dataset]
    retained: Dataset | None
    start: Model

    @classmethod
    def open(cls, config: Config) -> Experiment:
        """Read frames and model."""
        arms = load_arms(config.system)
        tests = {f"{arm.name}: {arm.held_out}": arm.test for arm in arms}
        tests |= {path.stem: read_dataset(path) for path in config.test}
        retained = None
        if config.retained:
            retained = mptrj(config.retained, _LARGEST_RETAINED)
        named = {arm.name: arm for arm in arms}
        return cls(config, named, tests, retained, load(config.model).cast("float32"))

    def jobs(self) -> list[Job]:
        """All fine-tunes: the first strategy at all numbers of labels, the others at the largest that all arms have."""
        c = self.config
        jobs = []
        for arm in self.arms.values():
            counts = [n for n in c.labels if n <= len(arm.train)]
            for strategy in c.strategies:
                chosen = counts if strategy == c.strategies[0] else [n for n in counts if n == self.common]
                jobs += [
                    Job(arm.name, n, seed, strategy)
                    for n in chosen
                    for seed in range(c.seeds if n == self.common else 1)
                ]
        if not jobs:
            raise ValueError(f"no arm has as many frames as the smallest of labels={c.labels}; ask for fewer.")
        return sorted(jobs, key=lambda job: (job.labels, job.arm, job.strategy, job.seed))

    @property
    def common(self) -> int:
        """Largest number of labels that every arm has: where arms are compared."""
        fewest = min(len(arm.train) for arm in self.arms.values())
        common = [n for n in self.config.labels if n <= fewest]
        if not common:
            raise ValueError(f"the smallest arm has {fewest} training frames, fewer than any of {self.config.labels}.")
        return max(common)

    def predict_retained(self, model: Model, data: Dataset) -> Sequence[StructurePrediction]:
        """Predictions on structures of the start model's own level, with its isolated-atom energies.

        Those of the new labels belong to another code. A model with a head for what it replayed is asked there.
        """
        shared = model.potential.replace(
            e0s=np.repeat(self.start.potential.e0s[:1], len(model.potential.heads), axis=0)
        )
        batches = dataclasses.replace(LabelledBatches.create(shared, data, 4), head=len(shared.heads) - 1)
        return predict(model.potential, model.params, batches)


def predictions_of(model: Model, data: Dataset) -> Sequence[StructurePrediction]:
    """Predictions of a model."""
    return predict(*model, LabelledBatches.create(model.potential, data, 4))


def get_model(experiment: Experiment, job: Job) -> Trained:
    """Fine-tune, or read what was fine-tuned before.

    The start model gets E0s fitted to the first labels of the first arm: otherwise every error would be the offset
    between two codes. Of all labels a tenth, spread evenly, decides which epoch is kept: the same number in each arm.
    """
    start = experiment.start
    if job.arm is None:
        first = next(iter(experiment.arms.values())).train
        first = first.subset(range(min(_FIRST_LABELS, len(first))))
        estimate = estimate_e0s(first, predictions_of(start, first))
        return Trained(job, start._replace(potential=shift_e0s(start.potential, estimate.shifts)), None)
    train = experiment.arms[job.arm].train.subset(range(job.labels))
    valid = validation_frames(job.labels)
    c = experiment.config
    settings = FinetuneSettings(
        strategy=job.strategy,  # pyright: ignore[reportArgumentType]
        e0s="estimate" if c.e0s == "estimate" else str(registry.data_folder() / c.system / "isolated_atoms.json"),
        # what the doctor would refuse, and the question of the preset "isolated"
        allow_e0_mismatch=c.e0s == "isolated",
        epochs=c.epochs,
        batch_size=c.batch_size,
        learning_rate=c.learning_rate,
        seed=job.seed,
        anchor="none" if job.strategy != "pseudo-replay" else "generated",
    )
    rest = train.subset([i for i in range(job.labels) if i not in valid])
    tuned = finetune(start, rest, train.subset(valid), settings=settings, out=c.out / "models" / job.name)
    return Trained(job, tuned.model.cast("float32"), train)


def evaluate(experiment: Experiment, trained: Trained) -> dict[str, Any]:
    """Errors on all test sets, on the frames that extrapolate from the training set, and on retained structures."""
    model, folder = trained.model, experiment.config.out / "models" / trained.job.name
    result: dict[str, Any] = {"tests": {}, "extrapolating": {}, "retained": None}
    arrays = {}
    for number, (name, data) in enumerate(experiment.tests.items()):
        predictions = predictions_of(model, data)
        outside = extrapolates(trained.train, data) if trained.train is not None else np.zeros(len(data), bool)
        result["tests"][name] = {**error_report(data, predictions), "frames": frame_errors(data, predictions)}
        result["tests"][name]["frames"]["extrapolates"] = outside.tolist()
        if outside.any():
            few = [predictions[i] for i in np.flatnonzero(outside).tolist()]
            result["extrapolating"][name] = error_report(data.subset(np.flatnonzero(outside)), few)
        arrays[f"forces_{number}"] = np.concatenate([p.forces for p in predictions]).astype(np.float32)
    if experiment.retained is not None:
        predictions = experiment.predict_retained(model, experiment.retained)
        result["retained"] = {
            **error_report(experiment.retained, predictions),
            "frames": frame_errors(experiment.retained, predictions),
        }
    folder.mkdir(parents=True, exist_ok=True)
    with replace_on_success(folder / "forces.npz") as temporary, open(temporary, "wb") as stream:
        np.savez(stream, **arrays)  # pyright: ignore[reportArgumentType]
    return {**trained.job._asdict(), "arm": trained.job.arm or "zero-shot", **result}


def run_job(config: Config, job: Job) -> dict[str, Any]:
    """Fine-tune and evaluate one model: a row of the results."""
    experiment = Experiment.open(config)
    return evaluate(experiment, get_model(experiment, job))


def outlying_labels(experiment: Experiment, start: Trained) -> dict[str, dict[str, Any]]:
    """Frames of each arm whose energy label stands out (see the doctor): what the doctor says, and their numbers."""
    result = {}
    for name, arm in experiment.arms.items():
        data = arm.train + arm.test
        # E0s move all frames of one composition alike, so those of the start model serve
        compared = Compared(name, tuple(range(len(data))), data, predictions_of(start.model, data))
        for finding in find_outliers(compared)[0]:
            held_out = [i - len(arm.train) for _, i in finding.frames if i >= len(arm.train)]
            result[name] = {
                "message": finding.message,
                "in_training": [i for _, i in finding.frames if i < len(arm.train)],
                "held_out": held_out,
            }
    return result


def forces_of(out: Path, job: Job, number: int) -> np.ndarray:
    """Predicted forces (atoms of all frames, 3) in eV/Å of a model on the test set of that number."""
    with np.load(out / "models" / job.name / "forces.npz", allow_pickle=False) as file:
        return file[f"forces_{number}"]


def frame_errors(data: Dataset, predictions: Sequence[StructurePrediction]) -> dict[str, list[float]]:
    """Energy error (meV/atom), mean squared force error ((meV/Å)²) and mean absolute stress error of every frame."""
    energy, stress = [], []
    for prediction, (system, labels, _) in zip(predictions, data, strict=True):
        energy.append(_TO_MEV * (prediction.energy - float(labels.energy)) / system.n_atoms)
        stress.append(float(_TO_MEV * np.mean(np.abs(prediction.stress - np.asarray(labels.stress)))))
    return {"energy": energy, "force_squared": force_squares(data, predictions), "stress": stress}
