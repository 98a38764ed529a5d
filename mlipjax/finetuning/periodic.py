"""A periodic fine-tune: a model, a structure and an oracle in; a model that has seen its own mistakes out.

Every round the model drives MD, frames along it are labelled, and the model is trained on all labels so far. An oracle
that lives inside JAX is labelled with in compiled rounds (``compiled``); any other one, and every run with a folder, by
the loop on the host (``host``), which saves after every piece. Both give the same numbers.

A run with a folder keeps ``run.json`` (whose folder it is), ``labels.db``, ``checkpoints/``, ``history.jsonl``,
``model_1`` and so on after every round, and at its end ``model/``, ``frames.extxyz`` (all labelled frames),
``results.json`` and ``report.html``. The same call again resumes a run that was stopped at any moment, and only reads
one that is done.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from mlipjax import runtime, tree
from mlipjax.data import Dataset, read_dataset, structure_hash, write_dataset
from mlipjax.defaults import COMPONENTS
from mlipjax.files import plain, write_atomic
from mlipjax.finetuning.alarm import AlarmConfig
from mlipjax.finetuning.compiled import SystemStart, init, run_rounds
from mlipjax.finetuning.folder import claim_run, hash_model, run_folder
from mlipjax.finetuning.history import HISTORY, read_history
from mlipjax.finetuning.host import HostLoop
from mlipjax.finetuning.pieces import LoopResult, OnPiece, Piece
from mlipjax.finetuning.records import labelled_frames, model_of, round_rows
from mlipjax.finetuning.run_report import complete_run_report, write_run_report
from mlipjax.finetuning.setup import Controls, RoundConfig, Setup, SystemControls, SystemSetup
from mlipjax.finetuning.state import FineTuneState
from mlipjax.graph import VerletSpec
from mlipjax.losses import LossWeights, huber_loss
from mlipjax.md import Start, default_limits, default_timestep, make_ensemble, masses_of
from mlipjax.models import load, save
from mlipjax.optim import Optimizer, Strategy, make_strategy
from mlipjax.oracles import Failure, JittableOracle, Labeller, Oracle
from mlipjax.potential import Model, Potential
from mlipjax.settings import PeriodicSettings, SystemSettings
from mlipjax.system import Labels

RESULTS, MODEL, FRAMES, LABELS = "results.json", "model", "frames.extxyz", "labels.db"


@dataclasses.dataclass(frozen=True)
class Simulated:
    """A system of a run.

    Attributes:
        start: where every replica starts, what may move there; velocities are drawn.
        settings: its own ones; what they leave open is as for the run.
        name: in reports.
    """

    start: Start
    settings: SystemSettings = dataclasses.field(default_factory=SystemSettings)
    name: str = "the structure"


class Plan(NamedTuple):
    """A periodic fine-tune ready to start.

    Attributes:
        settings: of the run.
        systems: with complete settings.
        setup, controls: static parts, and the numbers of the run.
        state: before the first round.
        strategy: what is trained and how fast.
        n_parameters, n_trained: numbers of the model, and those that are trained.
    """

    settings: PeriodicSettings
    systems: tuple[Simulated, ...]
    setup: Setup
    controls: Controls
    state: FineTuneState
    strategy: Strategy
    n_parameters: int
    n_trained: int


class PeriodicResult(NamedTuple):
    """Result of a periodic fine-tune.

    Attributes:
        model: after the last round, with the energy zero of the labels.
        frames: labelled structures in the order of time, with their ``round`` (from 1); a data set to train on.
        history: records of all pieces of work.
        report: what also stands in ``results.json``; ``report["rounds"]`` has a row for each round.
    """

    model: Model
    frames: Dataset
    history: list[dict[str, Any]]
    report: dict[str, Any]


class PeriodicListener:
    """Is told of a run; this one says nothing."""

    def start(self, plan: Plan) -> None:
        """Before the first step; a folder is the run's by then, and may be given files such as its ``run.toml``."""

    def piece(self, piece: Piece) -> None:
        """Before and after every piece of work."""


def plan_periodic(model: Model, systems: Sequence[Simulated], settings: PeriodicSettings) -> Plan:
    """Make everything that is fixed before the first step.

    Args:
        model: that drives the first round; its first energy head is trained.
        systems: what is simulated, at least one.
        settings: everything else.

    Raises:
        ValueError: for elements the model does not know, settings that do not fit each other, or an ensemble that
            cannot simulate a structure.
    """
    potential, params = model
    systems = tuple(_complete(potential, system, settings) for system in systems)
    potential, params = potential.replace(precision=settings.precision), tree.cast(params, settings.dtype)
    strategy = make_strategy(settings.strategy, params).override(learning_rate=settings.learning_rate)
    optimizer = Optimizer(strategy.optimizer_config(settings.train_steps))
    setups = tuple(
        _system_setup(potential, system, size)
        for system, size in zip(systems, share_batch(settings.batch_size, systems), strict=True)
    )
    setup = Setup(potential, setups, _round_config(settings), optimizer, huber_loss())
    controls = Controls(strategy.hyper(LossWeights()), tuple(map(_system_controls, systems)))
    starts = [
        SystemStart(
            dataclasses.replace(system.start, momenta=None),
            n_replicas=system.settings.replicas or 1,
            capacity=settings.rounds * (system.settings.labels_per_round or 1),
        )
        for system in systems
    ]
    state = init(setup, params, starts, controls, jax.random.key(settings.seed))
    n_trained = tree.count(optimizer.split(params)[0])
    return Plan(settings, systems, setup, controls, state, strategy, tree.count(params), n_trained)


def _complete(potential: Potential, system: Simulated, settings: PeriodicSettings) -> Simulated:
    """A system with all its settings; errors name it."""
    numbers = system.start.system.atomic_numbers
    try:
        potential.check_elements(np.unique(numbers).tolist())
    except ValueError as error:
        raise ValueError(f"{system.name}: {error}") from error
    own = settings.of(system.settings)
    timestep = own.timestep or default_timestep(numbers, masses_of(system.start.system))
    return dataclasses.replace(system, settings=dataclasses.replace(own, timestep=timestep))


def _system_setup(potential: Potential, system: Simulated, batch_size: int) -> SystemSetup:
    own, start = system.settings, system.start.system
    steps, labels, replicas = own.steps or 1, own.labels_per_round or 1, own.replicas or 1
    steps_per_chunk = next(n for n in range(min(10, steps), 0, -1) if steps % n == 0)
    numbers, counts = np.unique(start.atomic_numbers, return_counts=True)
    return SystemSetup(
        spec=VerletSpec.for_systems([start], potential.cutoff),
        composition=tuple(zip(numbers.tolist(), counts.tolist(), strict=True)),
        labels_per_replica=labels // replicas,
        chunks_per_label=steps // steps_per_chunk,
        steps_per_chunk=steps_per_chunk,
        batch_size=batch_size,
    )


def _system_controls(system: Simulated) -> SystemControls:
    own, start = system.settings, system.start
    kelvin = _number(own.temperature)
    ensemble = make_ensemble(
        own.ensemble or "nvt",
        timestep_fs=_number(own.timestep),
        temperature_K=kelvin,
        pressure_bar=_number(own.pressure),
    )
    return SystemControls(ensemble, default_limits(kelvin, start.system.n_atoms, freedom=start.freedom), own.weight)


def _number(value: Any) -> float:
    """A setting that has been completed, and is one number."""
    return float(value)


def share_batch(batch_size: int, systems: Sequence[Simulated]) -> list[int]:
    """Frames of each system in an optimiser step: in proportion to their labels, by largest remainders.

    Each has one at least, so that a batch may be larger than asked for, and none more than its labels of a round.
    """
    labels = np.array([system.settings.labels_per_round or 1 for system in systems])
    quotas = batch_size * labels / labels.sum()
    sizes = np.maximum(quotas.astype(int), 1)
    for index in np.argsort(sizes - quotas, kind="stable")[: max(batch_size - int(sizes.sum()), 0)]:
        sizes[index] += 1
    return np.minimum(sizes, labels).tolist()


def _round_config(settings: PeriodicSettings) -> RoundConfig:
    watched = settings.on_alarm != "off"
    return RoundConfig(
        train_steps=settings.train_steps,
        chart_components=COMPONENTS if watched else 0,
        alarm=AlarmConfig(settings.on_alarm) if settings.on_alarm != "off" else None,
        estimate_shift=settings.e0s == "estimate",
    )


def run_plan(plan: Plan, labeller: Labeller, folder: Path | None, on_piece: OnPiece) -> LoopResult:
    """Run a plan: in compiled rounds where oracle and tables allow it and nothing is kept, else on the host.

    Raises:
        Stopped: see ``HostLoop.run``.
    """
    rounds, oracle = plan.settings.rounds, labeller.oracle
    if folder is None and isinstance(oracle, JittableOracle) and oracle.jittable:
        reach = plan.setup.potential.cutoff  # the graphs of the student hold no pairs further apart
        if oracle.cutoff <= reach:
            return run_rounds(plan.setup, oracle, plan.controls, plan.state, rounds, on_piece)
    return HostLoop(plan.setup, labeller, plan.controls, folder, on_piece).run(plan.state, rounds)


def run_periodic(
    model: Model,
    systems: Sequence[Simulated],
    oracle: Oracle,
    settings: PeriodicSettings,
    *,
    out: Path | None = None,
    workers: int | None = None,
    listener: PeriodicListener | None = None,
) -> PeriodicResult:
    """Fine-tune a model along its own MD; ``mlipjax.periodic`` is the same for names and files.

    Args:
        model: that drives the first round.
        systems: what is simulated, at least one.
        oracle: source of the labels.
        settings: everything else.
        out: folder of the run; ``None`` keeps nothing on disk.
        workers: processes that label; by default one per core.
        listener: is told of plan and pieces.

    Raises:
        ValueError: if something cannot be honoured, or the folder holds another run.
        Stopped: if the run cannot go on; what was done stays in the folder.
        InUseError: if another process works in ``out``.
    """
    listener = PeriodicListener() if listener is None else listener
    if out is None:
        plan = plan_periodic(model, systems, settings)
        listener.start(plan)
        with Labeller(oracle, n_workers=workers) as labeller:
            end = run_plan(plan, labeller, None, listener.piece)
        return PeriodicResult(model_of(plan.setup, end.state), *_results(plan, oracle, end))
    description = _describe(model, systems, oracle, settings)
    with run_folder(out, description, RESULTS) as finished:
        if finished is not None:
            complete_run_report(out, finished)
            return _read(out, finished)
        plan = plan_periodic(model, systems, settings)
        claim_run(out, description)
        listener.start(plan)
        with Labeller(oracle, out / LABELS, n_workers=workers) as labeller:
            end = run_plan(plan, labeller, out, listener.piece)
            frames, _, report = _results(plan, oracle, end)
            frames = in_full_precision(frames, labeller.label(frames.systems))
        write_dataset(out / FRAMES, frames)
        save(out / MODEL, *model_of(plan.setup, end.state))
        # its presence says that the run is done; figures can be drawn at any time
        write_atomic(out / RESULTS, json.dumps(report, indent=1) + "\n")
        write_run_report(out, report)
    return _read(out, report)


def in_full_precision(frames: Dataset, labels: Sequence[Labels | Failure]) -> Dataset:
    """Frames with their labels as they were computed: the loop has them in its own precision.

    Args:
        frames: of a loop, each with its label.
        labels: of the same frames in the same order; where there is none (any more), the loop's stays.
    """
    pairs = zip(frames.labels, labels, strict=True)
    return dataclasses.replace(frames, labels=tuple(own if isinstance(new, Failure) else new for own, new in pairs))


def _describe(model: Model, systems: Sequence[Simulated], oracle: Oracle, settings: PeriodicSettings) -> dict[str, Any]:
    """Return what must be equal for a folder to be the same run; JSON types."""
    hashes = []
    for system in systems:
        freedom = system.start.freedom
        hashes.append(structure_hash(system.start.system) + ("" if freedom is None else freedom.mask.hex()))
    own = [_told(system) for system in systems]
    return {
        "settings": dataclasses.asdict(settings),
        "model_sha256": hash_model(model),
        "structure_sha256": " ".join(hashes),
        "systems": own if any(own) else None,
        "oracle": oracle.identity,
    }


def _told(system: Simulated) -> dict[str, Any]:
    """Settings of a system that are its own; JSON types."""
    return {name: value for name, default in _OWN.items() if (value := getattr(system.settings, name)) != default}


_OWN = {field.name: field.default for field in dataclasses.fields(SystemSettings) if field.name != "structure"}


def _read(folder: Path, report: dict[str, Any]) -> PeriodicResult:
    return PeriodicResult(load(folder / MODEL), read_dataset(folder / FRAMES), read_history(folder / HISTORY), report)


def _results(plan: Plan, oracle: Oracle, end: LoopResult) -> tuple[Dataset, list[dict[str, Any]], dict[str, Any]]:
    rows = round_rows(end.history)
    report = {
        "settings": dataclasses.asdict(plan.settings),
        "oracle": oracle.name,
        "systems": [
            {
                "name": system.name,
                "formula": system.start.system.to_ase().get_chemical_formula(),
                "n_atoms": system.start.system.n_atoms,
                **{name: getattr(system.settings, name) for name in _OWN},
                "energy_shift_eV": float(state.energy_shift),
            }
            for system, state in zip(plan.systems, end.state.systems, strict=True)
        ],
        "elements": sorted({z for own in plan.setup.systems for z, _ in own.composition}),
        "n_parameters": plan.n_parameters,
        "n_trained_parameters": plan.n_trained,
        # no epochs are chosen among, so the weight of an anchor means nothing
        "strategy": [list(row) for row in plan.strategy.explain() if row[0] != "anchor_weight"],
        "labels_made": sum(row["labels"] for row in rows),
        "labels_failed": sum(row["failed"] for row in rows),
        "rounds": rows,
        "versions": runtime.versions(),
    }
    return labelled_frames(plan.setup, end.state), end.history, plain(report)
