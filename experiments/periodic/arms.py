"""Start of all parts of ``experiments.periodic``, and the arms: three ways to collect the same labels."""

from __future__ import annotations

from typing import Any, NamedTuple

from experiments.lab.paths import ELECTROLYTE
from experiments.periodic.config import Config
from mlipjax import md, runtime
from mlipjax.data import read_atoms
from mlipjax.finetuning.periodic import FRAMES, Problem, run_periodic
from mlipjax.finetuning.plan import Simulated
from mlipjax.models import load
from mlipjax.notices import notice
from mlipjax.oracles import Oracle, make_oracle
from mlipjax.potential import Model
from mlipjax.settings import PeriodicSettings
from mlipjax.system import System

ARMS = ("naive", "periodic", "single")


class Experiment(NamedTuple):
    """Start structure, universal model, oracle."""

    system: System
    model: Model
    oracle: Oracle


def open_experiment(config: Config) -> Experiment:
    """Load what every arm shares, in the precision of the run."""
    runtime.select_dtype(config.dtype)
    model = load(config.model).cast(config.dtype)
    structure = config.structure or ELECTROLYTE
    atoms = read_atoms(structure)[0]
    if atoms.constraints:
        notice(f"{structure}: its constraints are not used, as the oracle's own trajectory has none.")
    system = System.from_ase(atoms)
    model.potential.check_elements(system.atomic_numbers.tolist())
    return Experiment(system, model, make_oracle(config.oracle))


def settings_of(config: Config, arm: str) -> PeriodicSettings:
    """Replicas side by side (naive) or rounds one after the other (periodic), with the labels that all arms have."""
    rounds = config.rounds if arm == "periodic" else 1
    return PeriodicSettings(
        rounds=rounds,
        labels_per_round=config.rounds * config.labels_per_round // rounds,
        steps=config.steps,
        train_steps=config.train_steps * config.rounds // rounds,
        replicas=config.rounds if arm == "naive" else 1,
        ensemble=config.ensemble,
        temperature=config.temperature,
        timestep=config.timestep,
        strategy=config.strategy,
        optimizer="adam",  # as in the runs that are kept
        learning_rate=config.learning_rate,
        batch_size=config.batch_size,
        e0s="estimate" if config.e0s is None else config.e0s,
        on_alarm=config.on_alarm,
        seed=config.seed,
        dtype=config.dtype,
    )


def run_arm(config: Config, arm: str) -> dict[str, Any]:
    """Sample, label and train; the models and the labelled frames stay in the arm's folder."""
    system, model, oracle = open_experiment(config)
    problem = Problem(model, [Simulated(md.Start(system))], oracle)
    found = run_periodic(problem, settings_of(config, arm), out=config.out / arm, workers=1)
    return {"history": found.history, "rounds": found.report["rounds"], "n_atoms": system.n_atoms}


def models_of(config: Config, arm: str) -> list[Model]:
    """The models of an arm that has run, one after each round; of "zero-shot" the universal one.

    That gets the energy zero of the periodic arm's models, so that its errors hold no other zero of the oracle.
    """
    if arm == "zero-shot":
        (first, *_), universal = models_of(config, "periodic"), open_experiment(config).model
        return [universal._replace(potential=first.potential)]
    return [load(config.out / arm / f"model_{k + 1}") for k in range(settings_of(config, arm).rounds)]


def frames_of(config: Config, arm: str) -> list[System]:
    """The frames that an arm was trained on."""
    return [System.from_ase(atoms) for atoms in read_atoms(config.out / arm / FRAMES)]
