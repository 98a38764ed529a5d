"""A small model from a large one: structures, labels of the teacher, training, and a report on both."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from mlipjax import runtime, tree
from mlipjax.data import Dataset, TrajectoryWriter, split_dataset
from mlipjax.data.hashing import hash_dataset
from mlipjax.data.products import NAMES, products_in
from mlipjax.data.splits import Split
from mlipjax.files import plain, write_atomic
from mlipjax.finetuning.folder import REPORT, claim_run, describe_settings, run_folder
from mlipjax.finetuning.run import FinetuneListener, FinetuneResult
from mlipjax.finetuning.single import finetune
from mlipjax.hosts import refuse_several
from mlipjax.models import load
from mlipjax.notices import notice
from mlipjax.oracles import AseOracle, Labeller, Oracle, Teacher
from mlipjax.potential import Model
from mlipjax.settings import DISTILLATION, FinetuneSettings, SamplingSettings
from mlipjax.train.metrics import force_errors, parity_points
from mlipjax.train.products import label_products
from mlipjax.verbs.inputs import (
    ForeignModel,
    ModelLike,
    NativeModel,
    Structures,
    in_dtype,
    is_nothing,
    open_model,
    paths_in,
)
from mlipjax.verbs.read import read, read_structures
from mlipjax.verbs.sampled import GROUP, Sampler, generated, label_structures
from mlipjax.verbs.settings import completed, refuse_unknown
from mlipjax.verbs.student import FACTORS, Pair, describe_student, make_student

GENERATED = "generated"
STUDENT, LABELLED, LABELS, PRODUCTS = "student", "labelled", "labels.db", "products.extxyz"
"""Names in the folder of a distillation."""


class DistillListener(FinetuneListener):
    """A listener of the training that is also told of structures, labels and tests."""

    def work(self, what: str, done: int, total: int) -> None:
        """So many parts of a piece of work are done."""


def distill(
    teacher: ModelLike,
    structures: Structures,
    *,
    student: str | os.PathLike[str] = "small",
    out: str | os.PathLike[str],
    head: str | None = None,
    crystal: Structures = (),
    barrier: Structures = (),
    settings: FinetuneSettings | None = None,
    sampling: SamplingSettings | None = None,
    listener: DistillListener | None = None,
    **options: Any,
) -> FinetuneResult:
    """Train a small model on labels of a large one; the same call again resumes a run that was stopped.

    The teacher labels the structures given, strained and rattled copies of them, and frames of molecular dynamics that
    starts from them (``SamplingSettings``). Labels stand in ``out``/labels.db before they are used, and none is
    computed twice. What descends from one structure, or from one trajectory, is trained on, or validated on, or tested
    on, as a whole. The student is a model in ``out``/student, and ``out``/labelled a data set for other students
    (``finetune``).

    Args:
        teacher: what ``mlipjax.load`` takes or returns, or ``ase:module:factory``.
        structures: what the student will be used for, without labels; or "generated", for structures made from chemical
            ``elements`` alone.
        student: "small" (32x0e + 16x1o + 8x2e, 3 layers, 4.5 Å) or "medium" (64x0e + 32x1o + 16x2e, 5 Å); a JSON file
            of settings (of ``models.NequIPConfig``, say); or a model, whose architecture is taken, and with another
            ``strategy`` than "scratch" its parameters as well.
        out: folder of the run; a report.html at the end.
        head: name of the teacher's energy head; by default the first.
        crystal: a crystal whose lattice, elastic constants and phonons are compared.
        barrier: both ends of a path, or the whole, whose barrier is compared.
        settings: of the training; by default ``settings.DISTILLATION`` with what ``options`` say.
        sampling: structures and tests; likewise.
        listener: is told of structures, labels, steps and epochs.
        options: fields of ``SamplingSettings`` and ``FinetuneSettings``, such as ``rattles=8``, ``epochs=20``.

    Returns:
        The student (``model``) and the ``report`` (JSON types; also in ``report.json``): errors against the teacher on
        test structures, the ratio of speeds, and stability and errors in dynamics of its own.

    Raises:
        ValueError, FileNotFoundError: if models, structures or settings cannot be used.
        TypeError: for an option that does not exist.
        NonFiniteError: if training diverges.

    Examples:
        >>> import tempfile, mlipjax
        >>> from ase.build import bulk
        >>> cells = [bulk("NaCl", "rocksalt", a=a) for a in (5.4, 5.5, 5.6, 5.7, 5.8)]
        >>> short = {"temperatures": (), "rattles": 2, "epochs": 2, "test_ps": 0.02}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     found = mlipjax.distill("universal", cells, out=folder, **short)
        >>> found.report["n_labelled"]
        15
    """
    refuse_several("a distillation")
    settings = completed(FinetuneSettings, settings or DISTILLATION, options)
    sampling = completed(SamplingSettings, sampling, options)
    refuse_unknown(options, SamplingSettings, FinetuneSettings)
    if _is_generated(structures):
        # they are strained and rattled already, and pairs of atoms have no temperature
        sampling = dataclasses.replace(sampling, rattles=0, temperatures=())
    with in_dtype(settings.dtype):
        opened, starts = open_model(teacher, head), _starts(structures, sampling, settings.seed)
        if isinstance(opened, NativeModel):
            starts.check_elements(opened.potential.check_elements)
        job = _Distillation(
            teacher=opened,
            starts=starts,
            student=student,
            folder=Path(out),
            settings=settings,
            sampling=sampling,
            listener=DistillListener() if listener is None else listener,
        )
        description = job.describe(crystal, barrier)
        with run_folder(job.folder, description) as finished:
            if finished is None:
                claim_run(job.folder, description)
                finished = job.run(crystal, barrier)
            return FinetuneResult(*load(job.folder / STUDENT), finished)


def _is_generated(structures: Structures) -> bool:
    return paths_in(structures) == [GENERATED]


def _starts(structures: Structures, sampling: SamplingSettings, seed: int) -> Dataset:
    if _is_generated(structures):
        return generated(sampling, seed)
    if sampling.elements:
        raise ValueError('elements are those of generated structures; give structures="generated", or leave them out.')
    found = read_structures(structures)
    if not len(found):
        raise ValueError("there is no structure to label.")
    return found


@dataclasses.dataclass(frozen=True)
class _Distillation:
    """One run: what it was asked for, opened."""

    teacher: NativeModel | ForeignModel
    starts: Dataset
    student: str | os.PathLike[str]
    folder: Path
    settings: FinetuneSettings
    sampling: SamplingSettings
    listener: DistillListener

    @property
    def oracle(self) -> Oracle:
        """The teacher as a source of labels, in the precision of the training."""
        if isinstance(self.teacher, ForeignModel):
            return AseOracle(self.teacher.name.partition(":")[2])
        model = self.teacher.first
        return Teacher(model.potential, tree.cast(model.params, self.settings.dtype), dtype=self.settings.dtype)

    def describe(self, crystal: Structures, barrier: Structures) -> dict[str, Any]:
        """What must be equal for a folder to be the same run."""
        sampling = json.loads(json.dumps(dataclasses.asdict(self.sampling)))
        also = {"crystal": crystal, "barrier": barrier}
        return {
            "settings": {**describe_settings(self.settings), **sampling},
            "teacher": self.oracle.identity,
            "student": describe_student(self.student),
            "structures_sha256": hash_dataset(self.starts),
            **{
                f"{name}_sha256": None if is_nothing(value) else hash_dataset(read_structures(value))
                for name, value in also.items()
            },
        }

    def run(self, crystal: Structures, barrier: Structures) -> dict[str, Any]:
        """Do what is missing, and write the report."""
        with Labeller(self.oracle, self.folder / LABELS) as labeller:
            parts, left_out = self._labelled(labeller)
            result = self._trained(parts)
            pair = Pair(result.model, self.teacher, self.settings.dtype, self.settings.seed)
            errors, found = pair.errors(parts.test)
            like = max(self.starts.systems, key=lambda system: system.n_atoms)
            self.listener.work("speed", 0, 1)
            report = {
                "n_labelled": sum(map(len, (parts.train, parts.valid, parts.test))),
                "n_left_out": left_out,
                "split": parts.describe(),
                "test": errors,
                "speed": pair.speed(like),
                "dynamics": self._dynamics(pair, like, labeller),
                "crystal": None if is_nothing(crystal) else pair.crystal(crystal),
                "barrier": None if is_nothing(barrier) else pair.barrier(barrier),
                "sampling": dataclasses.asdict(self.sampling),
                "training": {k: result.report[k] for k in ("steps", "seconds", "n_parameters", "best_epoch", "after")},
                "labels": dataclasses.asdict(labeller.counts),
                "teacher": self.teacher.name,
                "versions": runtime.versions(),
            }
        report = json.loads(json.dumps(plain(report)))
        from mlipjax.report.distill import write_distill_report

        zero = result.potential.reference_energy
        points = parity_points(parts.test, found, lambda system: zero(system.atomic_numbers))
        write_distill_report(self.folder, report, points, force_errors(parts.test, found))
        write_atomic(self.folder / REPORT, json.dumps(report, indent=1))
        return report

    def _labelled(self, labeller: Labeller) -> tuple[Split, int]:
        own, seed = self.sampling, self.settings.seed
        driver = self._driver() if own.temperatures else None
        sampler = Sampler(self.starts, own, driver, self.folder / "md", self.settings.dtype, seed, self.listener.work)
        dataset, left_out = label_structures(sampler, labeller, self.folder / LABELLED)
        if left_out:
            notice(f"{left_out} structures were left out: without a label, with forces beyond 50 eV/Å, or not reached.")
        parts = split_dataset(
            dataset, valid=self.settings.valid_fraction, test=own.test_fraction, group_key=GROUP, seed=seed
        )
        return parts, left_out

    def _driver(self) -> Model:
        found = self.teacher if self.sampling.driver is None else open_model(self.sampling.driver)
        if isinstance(found, ForeignModel):
            raise ValueError(
                f"{found.name} is a foreign calculator, which drives no dynamics here; name a driver, or leave out the "
                "temperatures."
            )
        self.starts.check_elements(found.potential.check_elements)
        return found.first

    def _trained(self, parts: Split) -> FinetuneResult:
        seed = self.settings.seed
        e0s = getattr(self.oracle, "isolated_energies", {})
        model = make_student(self.student, parts.train, e0s, seed)
        products = self._products(parts.train) if self.sampling.products else None
        valid = parts.valid if len(parts.valid) else None
        options: dict[str, Any] = {"settings": self.settings, "products": products, "listener": self.listener}
        return finetune(model, parts.train, valid, out=self.folder / STUDENT, **options)

    def _products(self, train: Dataset) -> Dataset:
        """Products of the teacher's Hessian, each kept before the next is computed."""
        if isinstance(self.teacher, ForeignModel):
            raise ValueError(f"{self.teacher.name} is a foreign calculator, of which there are no Hessian products.")
        n = min(self.sampling.products, len(train))
        with TrajectoryWriter(self.folder / PRODUCTS) as writer:
            for number in range(writer.n_frames, n):
                system, _, info = train[number * len(train) // n]
                options: dict[str, Any] = {"dtype": self.settings.dtype, "seed": self.settings.seed + number}
                ((_, labels, _),) = label_products(self.teacher.first, [system], **options)
                arrays = {name: np.asarray(labels.properties[name]) for name in sorted(NAMES)}
                writer.write(system, arrays=arrays, info={GROUP: info[GROUP]})
                self.listener.work("Hessian products", number + 1, n)
        return products_in(read(self.folder / PRODUCTS))

    def _dynamics(self, pair: Pair, like: Any, labeller: Labeller) -> list[dict[str, Any]]:
        first, found = (self.sampling.temperatures or (300.0,))[0], []
        for number, factor in enumerate(FACTORS):
            self.listener.work("dynamics of the student", number, len(FACTORS))
            kelvin, ps = factor * first, self.sampling.test_ps
            found.append(pair.dynamics(like, kelvin, ps, self.folder / "test", labeller))
        return found
