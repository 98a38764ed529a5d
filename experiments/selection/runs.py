"""The runs of ``experiments.selection``: every system, way of choosing and seed, each tested after every round."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, get_args

from ase import Atoms
from ase.build import bulk, molecule

from experiments.lab.driven import oracle_frames
from experiments.lab.errors import force_squares
from experiments.lab.paths import ELECTROLYTE
from experiments.lab.units import Results, Unit
from experiments.selection.config import Config
from mlipjax import md, runtime
from mlipjax.data import Dataset, read_atoms, read_dataset
from mlipjax.data.write import write_atoms
from mlipjax.finetuning import PeriodicSettings, Problem, Simulated, run_periodic
from mlipjax.models import load
from mlipjax.oracles import make_oracle
from mlipjax.potential import Model
from mlipjax.settings.periodic import Select
from mlipjax.system import System
from mlipjax.train.evaluate import predict_dataset

SELECTIONS: tuple[Select, ...] = get_args(Select)
_HOTTER = 1.5
_EVERY = 20
"""MD steps between test frames."""


class _Case(NamedTuple):
    """A system: its oracle, temperature in K and time step in fs."""

    oracle: str
    kelvin: float
    timestep: float


_CASES = {
    "electrolyte": _Case("xtb", 300.0, 0.5),
    "ether": _Case("xtb", 500.0, 0.5),
    "silicon": _Case("sw", 1000.0, 2.0),
}


def structure_of(name: str) -> Atoms:
    """The structure that every trajectory of a system starts from."""
    if name == "electrolyte":
        return read_atoms(ELECTROLYTE)[0]
    if name == "ether":
        return molecule("CH3OCH3")
    return bulk("Si", cubic=True).repeat((2, 1, 1))


def units_of(config: Config) -> list[Unit]:
    """Test sets first; then seed by seed all arms of all systems, so that an unfinished run compares arms."""
    tests = [Unit(f"test-{name}", run_test, (config, name)) for name in config.systems]
    arms = [
        Unit(f"{name}-{select}-{seed}", run_arm, (config, name, select, seed), (f"test-{name}",))
        for seed in range(config.seeds)
        for name in config.systems
        for select in SELECTIONS
    ]
    return [*tests, *arms]


def run_test(config: Config, name: str) -> dict[str, Any]:
    """Label frames along the oracle's own trajectories at both temperatures, for all arms."""
    runtime.select_dtype(config.dtype)
    case, system = _CASES[name], System.from_ase(structure_of(name))
    frames = []
    for seed, factor in enumerate((1.0, _HOTTER)):
        frames += oracle_frames(
            make_oracle(case.oracle), system, factor * case.kelvin, config.test_frames // 2, every=_EVERY,
            timestep=case.timestep, seed=1000 + seed,
        )  # fmt: skip
    write_atoms(_test_file(config, name), frames)
    model = load(config.model).cast(config.dtype)
    return {"n_frames": len(frames), "squares": _squares(model, read_dataset(_test_file(config, name)), config.dtype)}


def run_arm(config: Config, name: str, select: Select, seed: int) -> dict[str, Any]:
    """Run the loop with one way of choosing; errors of every round's model on the test frames."""
    runtime.select_dtype(config.dtype)
    case = _CASES[name]
    settings = PeriodicSettings(
        rounds=config.rounds,
        labels_per_round=config.labels_per_round,
        select=select,
        sample_factor=config.sample_factor,
        steps=config.steps,
        train_steps=config.train_steps,
        batch_size=config.batch_size,
        temperature=case.kelvin,
        timestep=case.timestep,
        learning_rate=config.learning_rate,
        on_alarm="ignore" if select == "alarm" else "off",
        seed=seed,
        dtype=config.dtype,
    )
    model = load(config.model).cast(config.dtype)
    start = Simulated(md.Start(System.from_ase(structure_of(name))), name=name)
    folder = config.out / "loops" / f"{name}-{select}-{seed}"
    result = run_periodic(Problem(model, [start], make_oracle(case.oracle)), settings, out=folder, workers=1)
    test = read_dataset(_test_file(config, name))
    models = [load(folder / f"model_{number + 1}") for number in range(config.rounds)]
    return {
        "labels": len(result.frames),
        "squares": [_squares(one, test, config.dtype) for one in models],
        "chosen": [record["chosen"] for record in result.history if record["stage"] == "select"],
    }


def collect(config: Config, done: Results) -> dict[str, Any]:
    """The results of the units: squares by system and way of choosing, over (seeds, rounds, frames)."""
    return {
        "squares": {
            name: {
                select: [done[f"{name}-{select}-{seed}"]["squares"] for seed in range(config.seeds)]
                for select in SELECTIONS
            }
            for name in config.systems
        },
        "zero_shot": {name: done[f"test-{name}"]["squares"] for name in config.systems},
        "labels": sum(done[f"{n}-{s}-{k}"]["labels"] for n in config.systems for s in SELECTIONS
                      for k in range(config.seeds)),
        "cpu_minutes": sum(unit["cpu_seconds"] for unit in done.values()) / 60.0,
    }  # fmt: skip


def _squares(model: Model, frames: Dataset, dtype: str) -> list[float]:
    """Mean squared force errors of every frame, meV²/Å²."""
    return force_squares(frames, predict_dataset(model, frames, dtype=dtype))


def _test_file(config: Config, name: str) -> Path:
    return config.out / f"test-{name}.extxyz"
