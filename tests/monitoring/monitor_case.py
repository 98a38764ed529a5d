"""A tiny model and a jittering structure, shared by the tests of monitors."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from tiny_potential import init_params, random_system, tiny_potential

from mlipjax.monitoring import fit_monitor, frame_features
from mlipjax.potential import Model

N_FRAMES = 120


@functools.cache
def model():
    potential = tiny_potential()
    return Model(potential, init_params(potential))


def jittered(n, sigma, seed):
    """Frames of one structure of 10 atoms with normally distributed displacements in Å: independent frames."""
    rng = np.random.default_rng(seed)
    start = random_system(np.random.default_rng(7), 10)
    moved = [start.positions + sigma * rng.standard_normal(start.positions.shape) for _ in range(n)]
    return [dataclasses.replace(start, positions=positions) for positions in moved]


@functools.cache
def features(n=N_FRAMES, sigma=0.03, seed=0):
    return frame_features(model(), jittered(n, sigma, seed), dtype="float64")


@functools.cache
def monitor(level=0.05):
    return fit_monitor(features(), [i % 4 for i in range(N_FRAMES)], level=level, n_components=3, model="tiny")
