"""A short name for what a model computes: equal digests, equal configuration and parameters."""

from __future__ import annotations

import itertools

import numpy as np

from mlipjax import tree
from mlipjax.files import digest
from mlipjax.potential import Potential
from mlipjax.typing import Params


def model_digest(potential: Potential, params: Params) -> str:
    """Sixteen hexadecimal digits that depend on configuration, isolated-atom energies and every parameter."""
    facts = (type(potential.module).__name__, potential.config, potential.species, potential.heads)
    leaves = ((path, np.ascontiguousarray(leaf)) for path, leaf in sorted(tree.flatten_paths(params).items()))
    named = ((f"{path} {leaf.dtype} {leaf.shape}", leaf) for path, leaf in leaves)
    return digest(repr(facts), np.asarray(potential.e0s, np.float64), *itertools.chain.from_iterable(named))[:16]
