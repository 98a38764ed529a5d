"""Learning a property of structures from a pretrained potential, alone or together with its force field (S3)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ase import units

from mlipjax import tree
from mlipjax.data import Dataset, hash_input
from mlipjax.data.hashing import first_seen, hash_dataset
from mlipjax.data.properties import property_name, targets
from mlipjax.finetuning.folder import hash_model
from mlipjax.finetuning.properties_tasks import DENOISE, TaskMaker, add_property, standardise_inputs, target_moments
from mlipjax.finetuning.run import FinetuneListener, FinetuneResult, Outcome, run
from mlipjax.losses import LossWeights
from mlipjax.nn.readouts import PropertyHead
from mlipjax.notices import notice
from mlipjax.optim import Optimizer, Strategy, make_mode, published_multipliers
from mlipjax.optim.recipes import layer_count
from mlipjax.potential import Model, Potential
from mlipjax.settings import FinetuneSettings, PropertySettings
from mlipjax.settings.properties import check_settings
from mlipjax.train import (
    LabelledBatches,
    Mixture,
    TaskJudge,
    TrainConfig,
    Training,
    TrainState,
    predict_property,
    property_report,
)
from mlipjax.train.metrics import thinned
from mlipjax.typing import Params


def finetune_property(
    model: Model,
    data: PropertyInput,
    *,
    settings: FinetuneSettings,
    options: PropertySettings | None = None,
    out: str | os.PathLike[str] | None = None,
    listener: FinetuneListener | None = None,
) -> FinetuneResult:
    """Give a model a head for a property and train it.

    Args:
        model: where to start.
        data: structures and values, and whatever else is trained or reported on.
        settings: those shared with other fine-tunes; ``strategy`` is scratch, ft, lp or mft.
        options: those of the property.
        out: folder of the run (``run``); ``None`` keeps nothing on disk.
        listener: is told of plan, steps and epochs.

    Returns:
        The potential with the property's head (``potential.property_values``), its best parameters, and a report.

    Raises:
        ValueError: if settings, data or folder cannot be honoured.
        NonFiniteError: if training diverges.
        InUseError: if another process works in ``out``.
    """
    options = PropertySettings() if options is None else options
    check_settings(settings, options)
    if data.denoise is not None and not options.denoise:
        raise ValueError("structures for denoising need the size of the noise: give denoise in Å.")
    given = {**dataclasses.asdict(settings), **dataclasses.asdict(options), "property": property_name(data.train)}
    description = {
        "settings": json.loads(json.dumps(given)),
        "model_sha256": hash_model(model),
        **_hashes(data, settings, options),
    }

    def ready() -> PropertyPreparation:
        return prepare_property(model, data, settings, options)

    return run(ready, description, settings, out, listener)


def _hashes(data: PropertyInput, settings: FinetuneSettings, options: PropertySettings) -> dict[str, str | None]:
    """Fingerprints of all structures, which must be equal for a folder to be the same run."""
    sets = {"train": data.train, "valid": data.valid, "denoise": data.denoise}
    hashes = {f"{name}_sha256": None if part is None else _hash_properties(part) for name, part in sets.items()}
    hashes["replay_sha256"] = None if data.replay is None else hash_dataset(data.replay)
    for name, file in (("replay", settings.replay), ("denoise", options.denoise_data)):
        if file is not None and (digest := hash_input(file)) is not None:
            hashes[f"{name}_sha256"] = digest
    return hashes


def _hash_properties(data: Dataset) -> str:
    digest = hashlib.sha256()
    for key in data.labels[0].properties:
        digest.update(key.encode() + np.ascontiguousarray(targets(data, key)).tobytes())
    for system in data.systems:
        digest.update(np.asarray(system.atomic_numbers).tobytes() + np.asarray(system.positions).tobytes())
        digest.update(np.asarray(system.cell).tobytes())
    return digest.hexdigest()


class PropertyInput(NamedTuple):
    """Data of a fine-tune to a property.

    Attributes:
        train: structures and values (``data.properties``).
        valid: decides which parameters are kept; by default a random part of ``train``.
        replay: for mft, labelled structures of the force field, instead of ``FinetuneSettings.replay``.
        denoise: structures for denoising, instead of ``PropertySettings.denoise_data``.
        tests: more data sets on which errors are reported, by name.
    """

    train: Dataset
    valid: Dataset | None = None
    replay: Dataset | None = None
    denoise: Dataset | None = None
    tests: Mapping[str, Dataset] = {}


@dataclasses.dataclass(frozen=True)
class PropertyPreparation:
    """A property fine-tune ready to start.

    Attributes:
        potential: with the property's head.
        strategy, options: with the settings given by the user.
        notes: in words, the data of every task.
        training: what ``train`` takes; the property is its first task.
        valid: validation data of the property.
        tests: more data on which errors are reported, by name.
    """

    potential: Potential
    strategy: Strategy
    options: PropertySettings
    notes: dict[str, str]
    training: Training
    valid: LabelledBatches
    tests: dict[str, LabelledBatches]

    def conclude(self, state: TrainState, records: Sequence[dict[str, Any]]) -> Outcome:
        """Measure the best parameters on every set, and what they are at the other tasks."""
        training, best = self.training, state.best_params
        task, *others = training.mixture.tasks
        beside = {other.name: other.errors(best) for other in others if other.errors is not None}

        def pair(batches: LabelledBatches) -> np.ndarray:
            """(2, n) values and predictions."""
            found = predict_property(self.potential, best, batches, task.name)
            return np.stack([targets(batches.dataset, task.name), found])

        measured = pair(self.valid)
        report = {
            "options": dataclasses.asdict(self.options),
            "property": dataclasses.asdict(self.potential.property_head(task.name)),
            "tasks": self.notes,
            "n_train": len(task.batches.dataset),
            "n_parameters": tree.count(best),
            "n_trained_parameters": tree.count(training.optimizer.split(best)[0]),
            "valid": property_report(*measured),
            "force_field": {name: errors for name, errors in beside.items() if name != DENOISE},
            "denoising": beside.get(DENOISE),
            "tests": {name: property_report(*pair(batches)) for name, batches in self.tests.items()},
            "best_step": min(int(state.best_epoch) * training.config.epoch, training.config.steps),
        }
        return Outcome(report, {}, {"property": thinned(measured)})


def prepare_property(
    model: Model,
    data: PropertyInput,
    settings: FinetuneSettings,
    options: PropertySettings,
) -> PropertyPreparation:
    """Split, add heads, plan batches and gather force-field data.

    Raises:
        ValueError: see ``finetune_property``.
    """
    train_data, valid_data = _split(data, settings)
    name = property_name(train_data)
    check_properties(model.potential, name, train_data, valid_data)
    key = jax.random.key(settings.seed)
    frozen = Model(model.potential.replace(precision=settings.precision), tree.cast(model.params, settings.dtype))
    head = options.head(name, *target_moments(train_data, name, options.property_kind))
    potential, params = with_heads = add_property(frozen, head, key)
    if options.denoise and DENOISE not in {head.name for head in potential.properties}:
        noise_head = PropertyHead(DENOISE, "vector", options.property_hidden, "last", unit="displacement")
        potential, params = add_property(with_heads, noise_head, jax.random.fold_in(key, 1))
    if settings.strategy == "scratch":
        params = potential.init(key, settings.dtype)
    strategy = _strategy(params, settings, options)

    make = TaskMaker(potential, key, settings, options)
    seen = (options.steps or 0) * options.property_batch_size / len(train_data)
    train = make.batches(train_data, passes=max(2.0, seen) if options.steps else settings.epochs)
    valid, tests = make.batches(valid_data), {test: make.batches(part) for test, part in data.tests.items()}
    params = standardise_inputs(potential, params, head, train)
    made = [make.of_property(head, train, valid)]
    if settings.strategy == "mft":
        made.append(make.of_force_field(frozen, data.replay, train_data.elements))
    if options.denoise:
        others = sum(task.share for task, _ in made)
        made.append(make.of_noise(data.denoise, train_data, valid_data, others))
    total = options.steps or settings.epochs * train.steps_per_epoch
    optimizer = Optimizer(strategy.optimizer_config(total))
    mixture = Mixture(tuple(task for task, _ in made), options.mixture)
    training = Training(
        mixture=mixture,
        optimizer=optimizer,
        state=TrainState.create(params, optimizer, key),
        hyper=strategy.hyper(LossWeights()),
        config=TrainConfig(total, options.validate_every or max(1, total // 20), apart=True),
        judge=TaskJudge(mixture, (name, "mae")),
    )
    notes = {task.name: note for task, note in made}
    return PropertyPreparation(potential, strategy, options, notes, training, valid, tests)


def _split(data: PropertyInput, settings: FinetuneSettings) -> tuple[Dataset, Dataset]:
    if data.valid is not None:
        return data.train, data.valid
    n = len(data.train)
    n_valid = max(1, round(settings.valid_fraction * n))
    if not 0.0 < settings.valid_fraction < 1.0 or n_valid >= n:
        raise ValueError(f"valid_fraction={settings.valid_fraction} of {n} structures: give a fraction.")
    order = np.random.default_rng(settings.seed).permutation(n)
    return data.train.subset(np.sort(order[n_valid:])), data.train.subset(np.sort(order[:n_valid]))


def _strategy(params: Params, settings: FinetuneSettings, options: PropertySettings) -> Strategy:
    multipliers = settings.layer_multipliers
    if options.published_decay:
        if multipliers is not None:
            raise ValueError("published_decay and layer_multipliers are two tables; give one of them.")
        multipliers = published_multipliers(layer_count(params))
    strategy = make_mode(settings.strategy, params, layer_decay=settings.layer_decay, layer_multipliers=multipliers)
    return strategy.override(learning_rate=settings.learning_rate, clip=settings.clip, ema_decay=settings.ema_decay)


# Factors between units in which one property is written.
_FACTORS = {
    "Hartree and eV": units.Hartree,
    "Rydberg and eV": units.Rydberg,
    "eV and kcal/mol": units.mol / units.kcal,
    "eV and kJ/mol": units.mol / units.kJ,
    "units and thousandths": 1e3,
}
_LEAST, _NEAR = 20, (1.3, 2.0)
# Structures that are compared one by one; larger sets take too long for what a validation set may cost.
_COMPARED = 20_000


def check_properties(potential: Potential, key: str, train: Dataset, valid: Dataset) -> None:
    """Refuse values and structures of the two sets that cannot belong together.

    Args:
        potential: where a fine-tune would start.
        key: name of the property.
        train, valid: structures and values.

    Raises:
        ValueError: for an unknown element, or validation values in another unit than those of training.
    """
    for name, data in (("training", train), ("validation", valid)):
        try:
            data.check_elements(potential.check_elements)
        except ValueError as error:
            raise ValueError(f"{name} structures of {key!r}: {error}") from None
    _check_scale(key, targets(train, key), targets(valid, key))
    if len(train) + len(valid) <= _COMPARED:
        first = first_seen([system for data in (train, valid) for system in data.systems])
        shared = np.flatnonzero(first[len(train) :] < len(train))
        if len(shared):
            notice(
                f"{len(shared)} of {len(valid)} validation structures of {key!r} (first: {shared[0]}) are in the "
                "training data, too: an error measured on them says nothing.",
            )


def _check_scale(key: str, train: np.ndarray, valid: np.ndarray) -> None:
    """Values of the two sets by size and by spread: of one unit, they differ by less than units do."""
    if min(len(train), len(valid)) >= _LEAST:
        _refuse_unit(key, train, valid)
    middle, low, high = float(np.median(valid)), train.min(), train.max()
    if not 2.0 * low - high <= middle <= 2.0 * high - low:
        notice(
            f"validation values of {key!r} lie around {middle:.3g}, those of training between {low:.3g} and {high:.3g};"
            " check that they are the same property, in one unit and of one sign."
        )


def _refuse_unit(key: str, train: np.ndarray, valid: np.ndarray) -> None:
    sizes = [float(np.median(np.abs(values))) for values in (train, valid)]
    spreads = [float(np.subtract(*np.percentile(values, [75, 25]))) for values in (train, valid)]
    if min(*sizes, *spreads) <= 0.0:
        return
    factors = sizes[1] / sizes[0], spreads[1] / spreads[0]
    for name, factor in _FACTORS.items():
        for sign in (1.0, -1.0):
            misfits = [abs(math.log(found) - sign * math.log(factor)) for found in factors]
            if all(misfit < math.log(near) for misfit, near in zip(misfits, _NEAR, strict=True)):
                raise ValueError(
                    f"validation values of {key!r} are {factors[0]:.3g} times those of training (medians), and "
                    f"spread {factors[1]:.3g} times as far: like {name}. Write both in one unit."
                )
