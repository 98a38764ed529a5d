"""Fine-tunes of ``experiments.reactive``: on published frames, and by the workflow of S1 with an oracle."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from experiments.reactive.config import Config
from experiments.reactive.models import Model, energy_shift, errors
from mlipjax.data import Dataset, read_dataset, split_dataset
from mlipjax.finetuning import FinetuneSettings
from mlipjax.finetuning.single import finetune
from mlipjax.models import registry
from mlipjax.probes.softening import softening

BLOCK = 400
"""Consecutive frame numbers of the published trajectory that form one group."""


_BATCH_SIZE = 2


@dataclasses.dataclass(frozen=True)
class Published:
    """Labelled frames of a reaction: a pool to learn from and whole groups to test on."""

    pool: Dataset
    test: Dataset


@functools.cache
def load_formate(n_test: int) -> Published:
    """Formate on Cu(110), 222 frames of DFT; frames near each other in time stay on one side.

    Raises:
        ValueError: if the frames are not at hand.
    """
    path = registry.data_folder() / "surfaces" / "formate_cu110.extxyz"
    if not path.exists():
        raise ValueError(f"{path} is not there: set MLIPJAX_DATA to the folder of public data, or leave formate out.")
    data = read_dataset(path)
    grouped = Dataset(
        data.systems,
        data.labels,
        tuple({**info, "group": f"block-{int(info['frame']) // BLOCK}"} for info in data.infos),
    )
    parts = split_dataset(grouped, valid=0, test=n_test, group_key="group", seed=0)
    order = np.random.default_rng(0).permutation(len(parts.train))
    return Published(parts.train.subset(order), parts.test)


def tune(start: Model, data: Dataset, strategy: Any, config: Config, seed: int, folder: Path) -> Model:
    """Fine-tune a native model (or train one of its architecture from scratch) on all the data given.

    A tenth of the data, at least one frame, decides which epoch is kept; it counts as labels.

    Args:
        start: model to begin with.
        data: labelled frames, all of them.
        strategy: "scratch", or any other of the fine-tunes.
        config: epochs.
        seed: of the fine-tune.
        folder: of the fine-tune.
    """
    own, scratch = start.own, strategy == "scratch"
    settings = FinetuneSettings(
        strategy=strategy,
        optimizer="adam",  # as in the runs that are kept
        e0s="estimate",
        epochs=config.scratch_epochs if scratch else config.epochs,
        batch_size=_BATCH_SIZE,
        seed=seed,
        anchor="none",
    )
    # one group for each frame: a handful of labels is divided by frame, on purpose
    frames = Dataset(data.systems, data.labels, tuple({"group": str(i)} for i in range(len(data))))
    tuned = finetune(own, frames, settings=settings, out=folder)
    return Model.native(start.name, own._replace(params=tuned.params))


def report_on(model: Model, published: Published, train: Dataset) -> dict[str, Any]:
    """Errors on the test frames with energies shifted by the training frames, and softening there."""
    slope = softening(model.evaluate, published.test)
    result = errors(model, published.test, energy_shift(model, train))
    return {"errors": result, "softening": slope.slope, "softening_95": list(slope.interval), "verdict": slope.verdict}


def most_changed(before: Model, after: Model, pool: Dataset, n: int) -> list[int]:
    """Frames whose forces changed most by the last fine-tune: no label is needed to know."""
    old, new = before.evaluate(pool.systems), after.evaluate(pool.systems)
    change = [float(np.linalg.norm(b.forces - a.forces, axis=1).max()) for a, b in zip(old, new, strict=True)]
    return np.argsort(change)[::-1][:n].tolist()


Fit = Callable[[Dataset, str, str], Model]
"""Model made of frames, by a strategy, in a folder of that name within the arm's."""


def learn(
    arm: str, n: int, first: Callable[[int], Dataset], rest: Callable[[Model, int], Dataset], fit: Fit
) -> tuple[Model, Dataset]:
    """Train on ``n`` labelled frames: at once, from scratch, or half of them and then all, chosen after the first half.

    Args:
        arm: "one-shot", "scratch" or "iterative".
        n: labels.
        first: frames to begin with, as many as asked for.
        rest: frames to go on with, given the model of the first half.
        fit: a fine-tune.

    Returns:
        the model, and the frames it has seen.
    """
    if arm != "iterative":
        data = first(n)
        return fit(data, "scratch" if arm == "scratch" else "naive", ""), data
    half = first(n // 2)
    data = half + rest(fit(half, "naive", "round-1"), n - n // 2)
    return fit(data, "naive", "round-2"), data
