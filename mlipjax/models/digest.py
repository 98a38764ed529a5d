"""A short name for what a model computes: equal digests, equal configuration and parameters."""

from __future__ import annotations

import hashlib

import numpy as np

from mlipjax import tree
from mlipjax.potential import Potential
from mlipjax.typing import Params


def model_digest(potential: Potential, params: Params) -> str:
    """Sixteen hexadecimal digits that depend on configuration, isolated-atom energies and every parameter."""
    digest = hashlib.sha256()
    facts = (type(potential.module).__name__, potential.config, potential.species, potential.heads)
    digest.update(repr(facts).encode())
    digest.update(np.ascontiguousarray(potential.e0s, np.float64).tobytes())
    for path, leaf in sorted(tree.flatten_paths(params).items()):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{path} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


__all__ = ["model_digest"]
