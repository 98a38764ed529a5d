"""Replay and anchor structures of a fine-tune: where they come from, and how the model takes a second head for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mlipjax import tree
from mlipjax.data import Dataset, View, find_group_key, read_dataset, split_dataset, take
from mlipjax.doctor import Finding, check_set, check_structures, demote, locate, refuse_fatal
from mlipjax.finetuning.structures import element_structures
from mlipjax.models.build import potential_from_config, potential_to_config
from mlipjax.optim import Strategy
from mlipjax.potential import Model, Potential
from mlipjax.settings import FinetuneSettings
from mlipjax.system import Labels, System
from mlipjax.train import LabelledBatches, LossJudge, error_report, predict
from mlipjax.train.batches import frames_per_step
from mlipjax.typing import Params

REPLAY_HEAD = "replay"
ANCHOR_FRACTION = 0.2
_LARGEST_FORCE = 30.0
_BATCH = 8


class Retention(NamedTuple):
    """Structures that hold a model to what it knew: replayed in every step, or measured after every epoch."""

    replay: LabelledBatches | None
    anchor: LabelledBatches | None


def add_head(model: Model) -> Model:
    """Return the model with an energy head ``REPLAY_HEAD``, a copy of the first.

    A model that has one already (from an earlier fine-tune) is returned as it is.

    Raises:
        ValueError: if the architecture has no named heads.
    """
    (potential, params), name = model, REPLAY_HEAD
    if name in potential.heads:
        return model
    description = potential_to_config(potential)
    if "heads" not in description["config"]:
        raise ValueError("replay needs a potential with named energy heads; choose another strategy.")
    description["config"]["heads"] = [*potential.heads, name]
    description["e0s"] = {**description["e0s"], name: description["e0s"][potential.heads[0]]}
    flat = dict(tree.flatten_paths(params))
    first = f"readout_{potential.heads[0]}/"
    copies = {path.replace(first, f"readout_{name}/"): leaf for path, leaf in flat.items() if path.startswith(first)}
    longer = potential_from_config(description).replace(precision=potential.precision)
    # the same leaf order as a model that was initialised with this head
    return Model(longer, tree.unflatten_paths({**flat, **copies}))


def pseudo_label(frozen: Model, systems: Sequence[System], settings: FinetuneSettings) -> Dataset:
    """Label structures with the frozen model; those on which it is not finite or forces are extreme are dropped.

    Structures stay where they are, labels where ``predict`` keeps them.

    Raises:
        ValueError: if none is left.
    """
    n = len(systems)
    bare = Dataset(systems, View(lambda index: Labels.create(systems[index].n_atoms), n), ({},) * n)
    batches = LabelledBatches.create(frozen.potential, bare, _BATCH, **settings.batching())
    predictions = predict(frozen.potential, frozen.params, batches)

    def label(index: int) -> Labels:
        found, system = predictions[index], systems[index]
        stress = found.stress if np.linalg.det(system.cell) else None
        return Labels.create(system.n_atoms, found.energy, found.forces, stress)

    good = [np.isfinite(p.energy) and bool(np.all(np.abs(p.forces) < _LARGEST_FORCE)) for p in predictions]
    rows = np.flatnonzero(good)
    if not len(rows):
        raise ValueError(
            f"the model gives none of {len(systems)} structures forces below {_LARGEST_FORCE:g} eV/Å; "
            "give a file of structures it knows."
        )
    return Dataset(take(systems, rows), View(label, rows), ({"labels": "frozen model"},) * len(rows))


def make_retention(
    strategy: Strategy,
    student: Potential,
    frozen: Model,
    elements: Sequence[int],
    settings: FinetuneSettings,
) -> tuple[Retention, dict[str, Any], list[Finding]]:
    """Gather replay and anchor structures of a run, say in words what they are, and what the doctor found in them.

    Args:
        strategy: what is replayed, and with which weights.
        student: the potential that is trained; its last head of the name ``REPLAY_HEAD`` takes replayed structures.
        frozen: the model before training.
        elements: of the training set.
        settings: files and sizes.

    Raises:
        ValueError: if a file is missing, its labels do not fit the model, or it is not of use for the strategy.
    """
    _check_replay_settings(strategy, settings)
    findings: list[Finding] = []
    replay, anchor, notes = _datasets(strategy, frozen, elements, settings)
    head = student.heads.index(REPLAY_HEAD) if strategy.replay else 0
    # without a head of their own, anchor energies are counted from the isolated atoms of the frozen model
    owner = student if strategy.replay else frozen.potential
    sets: dict[str, LabelledBatches | None] = {"replay": None, "anchor": None}
    for name, data, size in (("replay", replay, settings.batch_size), ("anchor", anchor, _BATCH)):
        if data is not None:
            findings += check_level(name, data, frozen, settings)
            size = size or frames_per_step(data)
            batches = LabelledBatches.create(owner, data, size, passes=settings.epochs, **settings.batching())
            sets[name] = dataclasses.replace(batches, head=head)
    return Retention(**sets), notes, findings


def _check_replay_settings(strategy: Strategy, settings: FinetuneSettings) -> None:
    if strategy.replay is None and settings.replay is not None:
        raise ValueError(
            f"strategy {strategy.name!r} replays nothing and has no use for replay={settings.replay!r}; choose replay "
            "or pseudo-replay, or measure the retained error on the file (anchor)."
        )
    if strategy.replay == "labels" and settings.replay is None:
        raise ValueError(
            "strategy 'replay' needs structures with true labels of the model's own level of theory (replay); without "
            "such data choose pseudo-replay, which makes both."
        )
    if settings.anchor == "none" and settings.anchor_weight is not None:
        raise ValueError("anchor_weight without anchor structures decides nothing; give some (anchor) or leave it out.")


def _datasets(
    strategy: Strategy, frozen: Model, elements: Sequence[int], settings: FinetuneSettings
) -> tuple[Dataset | None, Dataset | None, dict[str, Any]]:
    """Replay and anchor data, labelled; the anchor is never a part of what is replayed."""
    replay, anchor = None, None
    notes: dict[str, Any] = {"replay": None, "anchor": None}
    if strategy.replay is not None:
        replay, notes["replay"] = known_data(frozen, settings.replay, elements, settings, strategy.replay == "labels")
    if settings.anchor == "none" or strategy.from_scratch:
        return replay, None, notes
    if settings.anchor == "generated" and replay is not None:
        replay, anchor = split_replay(replay, settings.seed)
        source = "held out of the replay structures"
    else:
        given = None if settings.anchor == "generated" else settings.anchor
        anchor, source = known_data(frozen, given, elements, settings, True)
    notes["anchor"] = f"{len(anchor)} {source}"
    if replay is not None:
        notes["replay"] = f"{len(replay)} {notes['replay']}"
    return replay, anchor, notes


def known_data(
    frozen: Model,
    given: Dataset | str | None,
    elements: Sequence[int],
    settings: FinetuneSettings,
    true_labels: bool | None,
) -> tuple[Dataset, str]:
    """Return structures that the frozen model knows with labels of its level of theory, and what they are, in words.

    Args:
        frozen: the model before training.
        given: structures, or a file of them; ``None`` to generate some, with labels of the model.
        elements: of generated ones.
        settings: how many are generated, and how they are computed.
        true_labels: whether those of the structures are taken, or the model's; ``None`` for theirs if there are any.
    """
    if given is None:
        systems = element_structures(elements, settings.replay_size, settings.seed)
        return pseudo_label(frozen, systems, settings), "generated structures, labels of the frozen model"
    what = "given structures" if isinstance(given, Dataset) else f"structures of {given}"
    if not isinstance(given, Dataset):
        options = {} if true_labels else {"required": (), "with_labels": true_labels is None}
        given = read_dataset(given, **options)
    if true_labels or (true_labels is None and any(given.count_labels().values())):
        return given, f"{what} with their labels"
    given.check_elements(frozen.potential.check_elements)
    return pseudo_label(frozen, given.systems, settings), f"{what}, labels of the frozen model"


def split_replay(dataset: Dataset, seed: int) -> tuple[Dataset, Dataset]:
    """Divide replay structures into replayed and anchor ones; by groups if they carry any."""
    if len(dataset) < 2:
        raise ValueError(f"{len(dataset)} replay structure cannot be divided; give two or more, or another anchor.")
    if find_group_key(dataset) is not None:
        parts = split_dataset(dataset, valid=ANCHOR_FRACTION, seed=seed)
        return parts.train, parts.valid
    order = np.random.default_rng(seed).permutation(len(dataset))
    n_anchor = max(1, round(ANCHOR_FRACTION * len(dataset)))
    return dataset.subset(sorted(order[n_anchor:])), dataset.subset(sorted(order[:n_anchor]))


def check_level(name: str, dataset: Dataset, frozen: Model, settings: FinetuneSettings) -> list[Finding]:
    """Examine labels of the model's own level of theory: those of another one would overwrite what it knows.

    Returns:
        What is not fatal.

    Raises:
        ValueError: for a fatal finding that is not to be ignored.
    """
    if all(info.get("labels") == "frozen model" for info in dataset.infos):
        return []
    found = locate(check_structures(frozen.potential, {name: dataset}, dtype=settings.dtype), {name: dataset})
    findings = demote(found, settings.ignore)
    refuse_fatal(findings)
    batches = LabelledBatches.create(frozen.potential, dataset, _BATCH, **settings.batching())
    _, found = check_set(name, frozen.params, batches, e0s="model", dtype=settings.dtype, role="own")
    findings += demote(found, settings.ignore)
    refuse_fatal(findings)
    return findings


def anchor_report(judge: LossJudge, params: Params) -> Mapping[str, Any] | None:
    """Return the error report on the anchor structures, ``None`` without them."""
    if judge.anchor is None:
        return None
    found = predict(judge.objective.potential, jax.device_get(params), judge.anchor)
    return error_report(judge.anchor.dataset, found)
