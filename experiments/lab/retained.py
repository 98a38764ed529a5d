"""What a model knew before a fine-tune: structures of its own level of theory that it should not forget."""

from __future__ import annotations

import numpy as np

from experiments.lab.embedded import read
from experiments.lab.paths import PRETRAINING
from mlipjax.data import Dataset, read_dataset, split_dataset
from mlipjax.models import registry

EMBEDDED = "universal"
"""The embedded model, whose own structures are at hand; those of the published models are MPtrj's."""


def mptrj(n: int, largest: int) -> Dataset:
    """The first ``n`` MPtrj structures of at most ``largest`` atoms."""
    everything = read_dataset(registry.data_folder() / "materials" / "mptrj_1k.extxyz")
    small = [i for i, system in enumerate(everything.systems) if system.n_atoms <= largest]
    return everything.subset(small[:n])


def known_structures(model: str, n_test: int, n_replay: int, largest: int) -> tuple[Dataset, Dataset]:
    """Structures to test on, and others to replay, with labels of the level that a model was trained on.

    Args:
        model: pretrained potential: the embedded one, or one that was trained on MPtrj.
        n_test, n_replay: numbers of structures, at most.
        largest: atoms of the largest one.
    """
    if model != EMBEDDED:
        both = mptrj(n_test + n_replay, largest)
        return both.subset(range(n_test)), both.subset(range(n_test, len(both)))
    split = split_dataset(read(PRETRAINING), valid=0.05, test=0.05, group_key="group", seed=0)  # as it was trained
    parts = []
    for part, n in ((split.test, n_test), (split.train, n_replay)):
        small = [i for i, system in enumerate(part.systems) if system.n_atoms <= largest]
        parts.append(part.subset(np.random.default_rng(0).permutation(small)[:n].tolist()))
    return parts[0], parts[1]
