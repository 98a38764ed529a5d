"""The workflow of S1 on the S vacancy of MoS2: dynamics of a universal model, subsample, relabel, fine-tune."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.reactive.config import Config
from experiments.reactive.models import Model
from experiments.reactive.structures import Event
from experiments.reactive.tuning import learn, tune
from mlipjax.data import Dataset, Example
from mlipjax.md import Start, default_timestep, make_ensemble, run
from mlipjax.probes.evaluator import Evaluator
from mlipjax.probes.softening import force_slope
from mlipjax.system import Labels, System

VACANCY = "v-mos2"

_HOT = 1200.0  # K: hot enough to leave the harmonic region, too cold for a jump of 2 eV
_REPLICAS = 2


@dataclasses.dataclass(frozen=True)
class Workflow:
    """Inputs that all arms share.

    Attributes:
        driver: universal model that is simulated and fine-tuned.
        oracle: labels.
        event: the jump.
        path: images of the oracle's path, never trained on.
        labels: number of labels of every arm.
        steps: MD steps they are drawn from.
    """

    driver: Model
    oracle: Model
    event: Event
    path: list[System]
    labels: int
    steps: int

    def judge(self, model: Model) -> dict[str, Any]:
        """Force error and softening on the oracle's path."""
        truth, ours = self.oracle.evaluate(self.path), model.evaluate(self.path)
        pairs = [(t.forces, o.forces) for t, o in zip(truth, ours, strict=True)]
        slope = force_slope(pairs)
        rms = float(np.sqrt(np.mean([(a - b) ** 2 for a, b in pairs])))
        return {
            "softening": slope.slope,
            "softening_95": list(slope.interval),
            "path_force_rmse_meV_per_A": 1000.0 * rms,
        }

    def learn(self, arm: str, config: Config, seed: int, folder: Path) -> Model:
        """A model trained on ``labels`` frames: at once, from scratch, or half of them along the first fine-tune."""

        def draw(model: Model, count: int, seed: int) -> Dataset:
            frames = sample(model, self.event.start, count, temperature=_HOT, steps=self.steps, seed=seed)
            return label(self.oracle.evaluate, frames)

        def first(count: int) -> Dataset:
            return draw(self.driver, count, seed)

        def rest(model: Model, count: int) -> Dataset:
            return draw(model, count, seed + 1000)

        def fit(data: Dataset, strategy: str, part: str) -> Model:
            return tune(self.driver, data, strategy, config, seed, folder / part)

        return learn(arm, self.labels, first, rest, fit)[0]


def sample(model: Model, start: System, n_frames: int, *, temperature: float, steps: int, seed: int) -> list[System]:
    """Frames of short Langevin dynamics of a native model, evenly spaced, two replicas side by side.

    Raises:
        ValueError: for a foreign calculator.
        SimulationStopped: if the dynamics break down.
    """
    each = -(-n_frames // _REPLICAS)
    every = max(1, steps // each)
    frames: list[System] = []

    def keep(state: Any, info: Any) -> None:
        for positions in np.swapaxes(info.frames.position, 0, 1).reshape(-1, start.n_atoms, 3):
            frames.append(dataclasses.replace(start, positions=np.asarray(positions, float)))

    ensemble = make_ensemble("nvt", timestep_fs=default_timestep(start.atomic_numbers), temperature_K=temperature)
    run(
        model.own, Start(start), ensemble, every * each,
        key=jax.random.key(seed), n_replicas=_REPLICAS, frame_every=every, on_chunk=keep,
    )  # fmt: skip
    return frames[:n_frames]


def label(oracle: Evaluator, systems: Sequence[System]) -> Dataset:
    """Relabel structures by the oracle."""
    results = oracle(systems)
    return Dataset.from_examples(
        Example(system, Labels.create(system.n_atoms, result.energy, result.forces), {})
        for system, result in zip(systems, results, strict=True)
    )
