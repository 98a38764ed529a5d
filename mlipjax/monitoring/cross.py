"""A monitor whose limits come from all reference runs: every run is judged by charts fitted to the others.

Splitting the runs in two leaves half of them for the limits, and the rarer a frame that a limit is to be exceeded by,
the more a limit from few independent frames scatters. Cross-conformal prediction (Vovk, Ann. Math. Artif. Intell. 74, 9
(2015); Barber et al., Ann. Stat. 49, 486 (2021)) uses each run once for calibration and otherwise for the fit. Its
guarantee is twice the level in the worst case instead of the level; in practice the rate is close to the level.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from mlipjax.defaults import COMPONENTS
from mlipjax.monitoring.charts import FRAME_INDICES
from mlipjax.monitoring.correlation import by_run
from mlipjax.monitoring.features import FrameFeatures, Layers
from mlipjax.monitoring.fit import (
    MIN_CALIBRATION,
    Monitor,
    atom_limits,
    find_indices,
    fit_all,
    independent_frames,
)
from mlipjax.monitoring.limits import thinned_limit

MIN_RUNS = 3
_FOLDS = 6


def cross_fit_monitor(
    reference: FrameFeatures,
    runs: Sequence[object],
    *,
    level: float = 0.01,
    n_components: int = COMPONENTS,
    layers: Layers = "last",
    model: str = "",
) -> Monitor:
    """Fit charts to all reference frames, with limits from charts that had not seen the run they judge.

    Args:
        reference: as for ``fit_monitor``, and so are the others.
        runs: likewise.
        level: likewise.
        n_components: likewise.
        layers: likewise.
        model: likewise.

    Raises:
        ValueError: for fewer than three runs, too few frames, or an element that only some of the runs hold.
    """
    frames = by_run(np.arange(len(runs)), runs)
    if len(frames) < MIN_RUNS or reference.n_frames < 2 * MIN_CALIBRATION:
        raise ValueError(
            f"{len(frames)} runs of {reference.n_frames} frames are too few to judge each by the others; "
            f"{MIN_RUNS} runs and {2 * MIN_CALIBRATION} frames are needed. Use split calibration for one long run."
        )
    features, numbers, frame = reference.atoms()
    species = tuple(int(z) for z in np.unique(numbers))
    for own in frames:
        if set(np.unique(numbers[np.isin(frame, own)]).tolist()) != set(species):
            raise ValueError("some reference runs lack an element that others hold; use runs of the same composition.")
    rows = np.searchsorted(species, numbers)
    fold_of_run = np.arange(len(frames)) * min(len(frames), _FOLDS) // len(frames)
    fold = np.zeros(reference.n_frames, int)
    for own, number in zip(frames, fold_of_run, strict=True):
        fold[own] = number
    q, t2 = np.zeros(len(rows)), np.zeros(len(rows))
    for number in np.unique(fold):
        judged = fold[frame] == number
        charts = fit_all(features, rows, (~judged).astype(features.dtype), len(species), n_components)
        found = jax.device_get(find_indices(charts, features, rows))
        q[judged], t2[judged] = found.q[judged], found.t2[judged]
    chosen = np.isin(frame, independent_frames(q, t2, frame, runs, np.arange(reference.n_frames)))
    dtype = features.dtype
    q_limit, t2_limit = (atom_limits(index.astype(dtype), rows, chosen, len(species), level) for index in (q, t2))
    relative = q / q_limit[rows], t2 / t2_limit[rows]
    count, starts = np.bincount(frame), np.flatnonzero(np.diff(frame, prepend=-1))
    means = [np.bincount(frame, index) / count for index in (*relative, sum(relative))]
    scores = dict(zip(FRAME_INDICES, [*means, np.maximum.reduceat(sum(relative), starts)], strict=True))
    found = {name: thinned_limit(by_run(values, runs), level) for name, values in scores.items()}
    charts = fit_all(features, rows, np.ones(len(rows), dtype), len(species), n_components)
    limits = np.asarray([found[name].limit for name in FRAME_INDICES], dtype)
    charts = dataclasses.replace(charts, q_limit=q_limit, t2_limit=t2_limit, frame_limits=limits)
    n = reference.n_frames
    return Monitor(jax.tree.map(np.asarray, charts), species, layers, level, found, n, n, model)
