"""Entry point: see ``experiments/sweep/config.py``."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from experiments.lab.display import make_bar
from experiments.lab.entry import run_experiment
from experiments.lab.run import Run
from experiments.lab.s0 import load_arms
from experiments.sweep import report
from experiments.sweep.config import Config
from experiments.sweep.drift import early_drift, predictions
from experiments.sweep.speed import Throughput, measure
from mlipjax import runtime, tree
from mlipjax.data import Dataset, read_dataset
from mlipjax.files import write_atomic
from mlipjax.graph import plan_batches
from mlipjax.losses import LossWeights, huber_loss
from mlipjax.models import load
from mlipjax.optim import Optimizer, OptimizerConfig
from mlipjax.potential import Potential
from mlipjax.train import LabelledBatches, TrainState, estimate_e0s, predict, shift_e0s
from mlipjax.train.checkpoint import Checkpoints
from mlipjax.train.state import Batch
from mlipjax.train.sweep import (
    Setting,
    batch_orders,
    collect_errors,
    error_sums,
    grid,
    hyper_of,
    layer_rules,
    one_run,
    over_settings,
    stack,
)
from mlipjax.typing import Params


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Everything that is fixed before the first step.

    Attributes:
        config: resolved.
        settings: one per run.
        potential, params: the start model, its E0s fitted to the training labels.
        run: steps of one setting (``one_run``).
        states, hypers, orders: stacked over settings; orders (S, epochs, T).
        train, tests: stacked batches; tests by name.
        probe: test systems on which drift is measured.
        sizes: frames of each set.
    """

    config: Config
    settings: list[Setting]
    potential: Potential
    params: Params
    run: Any
    states: TrainState
    hypers: Any
    orders: np.ndarray
    train: Batch
    tests: dict[str, Batch]
    probe: Dataset
    sizes: dict[str, int]

    @classmethod
    def open(cls, config: Config) -> Sweep:
        """Read model and data and prepare all settings."""
        data = _read(config)
        potential, params = load(config.model)
        params = tree.cast(params, config.dtype)
        first = LabelledBatches.create(potential, data["train"], 1, dtype=config.dtype)
        estimate = estimate_e0s(data["train"], predict(potential, params, first))
        potential = shift_e0s(potential, estimate.shifts)
        settings = grid(config.seeds, config.rates, config.decays, config.frozen)
        train = stacked_batches(potential, data["train"], config.batch_size, config.dtype)
        n_batches = len(train.labels.energy)
        rules = layer_rules(params)
        steps = n_batches * config.epochs
        optimizer = Optimizer(OptimizerConfig(rules=rules, total_steps=steps, warmup_steps=steps // 10))
        states = [TrainState.create(params, optimizer, jax.random.key(setting.seed)) for setting in settings]
        return cls(
            config=config,
            settings=settings,
            potential=potential,
            params=params,
            run=one_run(potential, optimizer, huber_loss()),
            states=stack(states),
            hypers=stack([hyper_of(setting, rules, LossWeights(), config.dtype) for setting in settings]),
            orders=np.stack([batch_orders(setting, n_batches, config.epochs) for setting in settings]),
            train=train,
            tests={name: stacked_batches(potential, data[name], 1, config.dtype) for name in ("id", "ood")},
            probe=data["id"],
            sizes={name: len(part) for name, part in data.items()},
        )


def _read(config: Config) -> dict[str, Dataset]:
    """Training, in-domain and out-of-domain frames."""
    files = {"train": config.train, "id": config.test, "ood": config.ood}
    if any(file is not None for file in files.values()):
        if missing := [name for name, file in files.items() if file is None]:
            raise ValueError(f"--train, --test and --ood belong together; {', '.join(missing)} is not given.")
        data = {name: read_dataset(file) for name, file in files.items() if file is not None}
    else:
        arms = {arm.name: arm for arm in load_arms(config.system)}
        data = {"train": arms["naive"].train, "id": arms["naive"].test, "ood": arms["periodic"].test}
    sizes = {"train": config.frames, "id": config.test_frames, "ood": config.test_frames}
    # evenly over the file: the first frames alone would be those of the first run
    return {
        name: part.subset(np.unique(np.linspace(0, len(part) - 1, min(sizes[name], len(part))).round().astype(int)))
        for name, part in data.items()
    }


def stacked_batches(potential: Potential, dataset: Dataset, batch_size: int, dtype: str) -> Batch:
    """All batches of a data set, in one shape, along a leading axis."""
    batches = LabelledBatches.create(potential, dataset, batch_size, dtype=dtype, max_slots=2**62)
    sizes = batches.tables.n_atoms, batches.tables.max_counts
    plans = plan_batches(*sizes, min(batch_size, len(dataset)), n_widths=1, n_lengths=1)
    return stack([batches.batch(plan) for plan in plans])


def train(sweep: Sweep, width: int, folder: Path, console: Console) -> tuple[TrainState, dict[str, Any]]:
    """Train all settings epoch by epoch; measure drift after the first one; a checkpoint after each."""
    program = over_settings(lambda mapped, batches: sweep.run(*mapped, batches), width)
    file = folder / "progress.json"
    states, log = sweep.states, {"losses": [], "early": None}
    with Checkpoints(folder / "checkpoints") as checkpoints, make_bar(console, "{task.description}") as progress:
        restored = checkpoints.restore(states)
        done = checkpoints.latest() or 0
        if restored is not None:
            states, log = restored, json.loads(file.read_text())
            log["losses"] = log["losses"][:done]
        bar = progress.add_task(f"{len(sweep.settings)} settings, epochs", total=sweep.config.epochs, completed=done)
        for epoch in range(done, sweep.config.epochs):
            states, losses = program((states, sweep.orders[:, epoch], sweep.hypers), sweep.train)
            log["losses"].append(np.asarray(losses, np.float64).mean(axis=1).tolist())
            if epoch == 0:
                log["early"] = early_drift(
                    sweep.potential, sweep.params, states.params, sweep.probe, sweep.config.dtype
                )
            # the log first: after a kill between the two, the epoch is repeated and its line written again
            write_atomic(file, json.dumps(log))
            checkpoints.save(epoch + 1, states)
            progress.advance(bar)
    return states, log


def compute(sweep: Sweep, folder: Path, console: Console) -> dict[str, Any]:
    """Measure speed, train, test; return everything in JSON types."""
    speed = _speed(sweep, folder, console)
    width = sweep.config.width or speed.best_width
    states, log = train(sweep, width, folder, console)
    rows: list[dict[str, Any]] = [
        {**setting._asdict(), "losses": [epoch[i] for epoch in log["losses"]], "early": log["early"][i]}
        for i, setting in enumerate(sweep.settings)
    ]
    before = {}
    evaluate = over_settings(error_sums(sweep.potential), width)
    for name, batches in sweep.tests.items():
        errors = collect_errors(evaluate(states.ema_params, batches), batches)
        for i, row in enumerate(rows):
            row[name] = errors.summary(i)
        before[name] = collect_errors(evaluate(stack([sweep.params]), batches), batches).summary(0)
    return {
        "sizes": sweep.sizes,
        "n_settings": len(rows),
        "width": width,
        "throughput": dataclasses.asdict(speed),
        "before": before,
        "rows": rows,
        "prediction": predictions(rows),
    }


def _speed(sweep: Sweep, folder: Path, console: Console) -> Throughput:
    """Timings of this run's first start: a resumed run must keep the width it began with."""
    file = folder / "throughput.json"
    if file.exists():
        return Throughput(**json.loads(file.read_text()))
    if sweep.config.speed_steps == 0:
        speed = Throughput(0, 0, 0.0, 0.0, {}, {})
    else:
        with console.status("measuring throughput"):
            arguments = (sweep.states, sweep.orders[:, 0, : sweep.config.speed_steps], sweep.hypers)
            speed = measure(
                sweep.run, arguments, sweep.train, widths=(sweep.config.width,) if sweep.config.width else None
            )
    write_atomic(file, json.dumps(dataclasses.asdict(speed)))
    return speed


def main(config: Config) -> None:
    """Run what is missing; write ``results.json``, ``table.csv``, ``report.html`` and the figures."""
    runtime.select_dtype(config.dtype)
    if config.speed_steps == 0 and config.width == 0:
        raise ValueError("--speed-steps 0 measures no width; give one with --width.")
    run = Run(config)
    results = run.stored() or run.results(compute(Sweep.open(config), config.out, run.console))
    write_atomic(config.out / "table.csv", report.csv(results["rows"]))
    run.finish(results, report.outcome(results))


run = functools.partial(run_experiment, main, Config)

if __name__ == "__main__":
    sys.exit(run())
