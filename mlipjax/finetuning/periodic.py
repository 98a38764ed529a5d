"""A periodic fine-tune: a model, a structure and an oracle in; a model that has seen its own mistakes out.

Every round the model drives MD, frames along it are labelled, and the model is trained on all labels so far. An oracle
that lives inside JAX is labelled with in compiled rounds (``compiled``); any other one, and every run with a folder, by
the loop on the host (``host``), which saves after every piece. Both give the same numbers.

A run with a folder keeps ``run.json`` (whose folder it is), ``labels.db``, ``checkpoints/``, ``history.jsonl``,
``model_1`` and so on after every round, and at its end ``model/`` and ``frames.extxyz`` (all labelled frames).
``results.json`` and ``report.html`` are there from the beginning and written again as pieces of work are done. The same
call again resumes a run that was stopped at any moment, and only reads one that is done; with more rounds it goes on.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mlipjax import runtime
from mlipjax.data import Dataset, read_dataset, structure_hash, write_dataset
from mlipjax.data.hashing import hash_dataset
from mlipjax.dispersion import D3BJ
from mlipjax.files import plain, write_atomic
from mlipjax.finetuning.compiled import run_rounds
from mlipjax.finetuning.folder import claim_run, describe_settings, hash_model, run_folder
from mlipjax.finetuning.host import HostLoop, training_memory
from mlipjax.finetuning.pieces import LoopResult, OnPiece, Piece, Stopped
from mlipjax.finetuning.plan import OWN, Plan, Simulated, plan_periodic
from mlipjax.finetuning.records import HISTORY, labelled_frames, model_of, read_history, round_rows
from mlipjax.finetuning.run_report import FRAMES, complete_run_report, read_frames
from mlipjax.finetuning.stopping import reason_to_stop
from mlipjax.finetuning.verdict import judge_run
from mlipjax.models import load, save
from mlipjax.oracles import Failure, JittableOracle, Labeller, Oracle, Workers
from mlipjax.potential import Model
from mlipjax.settings import PeriodicSettings
from mlipjax.system import Labels

RESULTS, MODEL, LABELS = "results.json", "model", "labels.db"

RUNNING, DONE = "running", "done"


class Problem(NamedTuple):
    """Subject of a periodic fine-tune.

    Attributes:
        model: that drives the first round.
        systems: what is simulated, at least one.
        oracle: source of the labels.
        data: labelled frames from before, with total energies; ``None`` for none.
        dispersion: added to the model in MD; labels and data are without it.
    """

    model: Model
    systems: Sequence[Simulated]
    oracle: Oracle
    data: Dataset | None = None
    dispersion: D3BJ | None = None


class PeriodicResult(NamedTuple):
    """Result of a periodic fine-tune.

    Attributes:
        model: after the last round, with the energy zero of the labels.
        frames: labelled structures in the order of time, with their ``round`` and ``system`` (from 1).
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


def run_plan(plan: Plan, labeller: Labeller, folder: Path | None, on_piece: OnPiece) -> LoopResult:
    """Run a plan: in compiled rounds where oracle and tables allow it and nothing is kept, else on the host.

    Raises:
        Stopped: see ``HostLoop.run``.
    """
    rounds, oracle = plan.settings.rounds, labeller.oracle

    def until(history: Sequence[dict[str, Any]]) -> str | None:
        return reason_to_stop(plan.settings, history)

    if folder is None and not labeller.concurrent and isinstance(oracle, JittableOracle) and oracle.jittable:
        reach = plan.setup.potential.cutoff  # the graphs of the student hold no pairs further apart
        if oracle.cutoff <= reach:
            return run_rounds(plan.setup, oracle, plan.controls, plan.state, rounds, on_piece, until)
    loop = HostLoop(plan.setup, labeller, plan.controls, folder, on_piece, until, plan.settings.asynchronous)
    return loop.run(plan.state, rounds)


def run_periodic(
    problem: Problem,
    settings: PeriodicSettings,
    *,
    out: Path | None = None,
    workers: int | None = None,
    executor: Workers | None = None,
    listener: PeriodicListener | None = None,
) -> PeriodicResult:
    """Fine-tune a model along its own MD; ``mlipjax.periodic`` is the same for names and files.

    Args:
        problem: model, systems, oracle, and labelled frames from before.
        settings: everything else.
        out: folder of the run; ``None`` keeps nothing on disk.
        workers: processes that label; by default one per core.
        executor: where to label instead.
        listener: is told of plan and pieces.

    Raises:
        ValueError: if something cannot be honoured, or the folder holds another run.
        Stopped: if the run cannot go on; what was done stays in the folder.
        InUseError: if another process works in ``out``.
    """
    listener = PeriodicListener() if listener is None else listener
    model, systems, oracle, data, dispersion = problem
    computed: dict[str, Any] = {"executor": executor, "n_workers": workers if executor is None else None}
    if out is None:
        plan = plan_periodic(model, systems, settings, data, dispersion)
        listener.start(plan)
        with Labeller(oracle, **computed) as labeller:
            end = run_plan(plan, labeller, None, listener.piece)
        report = results_of(plan, oracle, end.history, DONE, end.reason)
        model, frames = model_of(plan.setup, end.state), labelled_frames(plan.setup, end.state)
        return PeriodicResult(model, frames, end.history, report)
    description = _describe(problem, settings)
    with run_folder(out, description, RESULTS, lambda report: is_done(report, settings)) as finished:
        if finished is not None:
            complete_run_report(out, finished)
            return _read(out, finished)
        plan = plan_periodic(model, systems, settings, data, dispersion)
        needed = training_memory(plan.setup, plan.state, plan.controls)
        plan = plan._replace(preflight=plan.preflight._replace(training_bytes=needed))
        claim_run(out, description)
        listener.start(plan)
        reporter = _Reporter(out, plan, oracle, listener)
        reporter.write(RUNNING)
        try:
            with Labeller(oracle, out / LABELS, **computed) as labeller:
                end = run_plan(plan, labeller, out, reporter.piece)
                frames = labelled_frames(plan.setup, end.state)
                frames = in_full_precision(frames, labeller.label(frames.systems))
        except Stopped as error:
            reporter.write(f"stopped: {error}")
            raise
        write_dataset(out / FRAMES, frames)
        save(out / MODEL, *model_of(plan.setup, end.state))
        # what it says of itself is that the run is done; figures can be drawn at any time
        report = reporter.write(DONE, end.reason)
    return _read(out, report)


def is_done(report: dict[str, Any], settings: PeriodicSettings) -> bool:
    """Tell whether a run with these results has nothing left to do.

    Raises:
        ValueError: if it has done more rounds than are asked for.
    """
    if report.get("status", DONE) != DONE:
        return False
    old, new = report["settings"], dataclasses.asdict(settings)
    n_rounds = len(report["rounds"])
    if n_rounds > settings.rounds:
        raise ValueError(f"the run has done {n_rounds} rounds; found rounds={settings.rounds}. Choose another folder.")
    asked = ("until_force_rmse", "until_alarm_rate")
    return n_rounds == settings.rounds or all(old.get(name) == new[name] for name in ("rounds", *asked))


@dataclasses.dataclass
class _Reporter:
    """Keeps ``results.json`` and ``report.html`` up to date, at no more than a tenth of the time of a run."""

    folder: Path
    plan: Plan
    oracle: Oracle
    listener: PeriodicListener
    _next: float = 0.0

    def piece(self, piece: Piece) -> None:
        """Tell the listener, and write if a piece is done and the last writing is long enough ago."""
        self.listener.piece(piece)
        if piece.record is not None and time.monotonic() >= self._next:
            self.write(RUNNING)

    def write(self, status: str, reason: str | None = None) -> dict[str, Any]:
        """Write both files; return the results."""
        from mlipjax.report.periodic import write_periodic_report

        began = time.monotonic()
        path = self.folder / HISTORY
        history = read_history(path) if path.is_file() else []
        report = results_of(self.plan, self.oracle, history, status, reason)
        if status == DONE:  # a report that cannot be drawn does not make a run undone
            write_atomic(self.folder / RESULTS, json.dumps(report, indent=1) + "\n")
        frames = read_frames(self.folder) if status == DONE else []
        write_periodic_report(self.folder, json.loads(json.dumps(report)), history, frames)
        if status != DONE:
            write_atomic(self.folder / RESULTS, json.dumps(report, indent=1) + "\n")
        now = time.monotonic()
        self._next = now + 10.0 * (now - began)
        return report


def in_full_precision(frames: Dataset, labels: Sequence[Labels | Failure]) -> Dataset:
    """Frames with their labels as they were computed: the loop has them in its own precision.

    Args:
        frames: of a loop, each with its label.
        labels: of the same frames in the same order; where there is none (any more), the loop's stays.
    """
    pairs = zip(frames.labels, labels, strict=True)
    return dataclasses.replace(frames, labels=tuple(own if isinstance(new, Failure) else new for own, new in pairs))


def _describe(problem: Problem, settings: PeriodicSettings) -> dict[str, Any]:
    """Return what must be equal for a folder to be the same run; JSON types."""
    hashes = []
    for system in problem.systems:
        freedom = system.start.freedom
        hashes.append(structure_hash(system.start.system) + ("" if freedom is None else freedom.mask.hex()))
    own = [
        {name: value for name, default in OWN.items() if (value := getattr(system.settings, name)) != default}
        for system in problem.systems
    ]
    return json.loads(json.dumps({
        "settings": describe_settings(settings),
        "model_sha256": hash_model(problem.model),
        "structure_sha256": " ".join(hashes),
        "systems": own if any(own) else None,
        "data_sha256": None if problem.data is None else hash_dataset(problem.data),
        "oracle": problem.oracle.identity,
        **({} if problem.dispersion is None else {"dispersion": problem.dispersion.name}),
    }))  # fmt: skip


def _read(folder: Path, report: dict[str, Any]) -> PeriodicResult:
    return PeriodicResult(load(folder / MODEL), read_dataset(folder / FRAMES), read_history(folder / HISTORY), report)


def results_of(
    plan: Plan, oracle: Oracle, history: list[dict[str, Any]], status: str, reason: str | None = None
) -> dict[str, Any]:
    """Results of a run so far; JSON types.

    Args:
        plan: of the run.
        oracle: its source of labels.
        history: its records.
        status: "running", "done", or why it was stopped.
        reason: why it is done before its last round.
    """
    rows = round_rows(history)
    shifts = {record.get("system", 0): record["energy_shift_eV"] for record in history if record["stage"] == "label"}
    report = {
        "status": status,
        "settings": dataclasses.asdict(plan.settings),
        "oracle": oracle.name,
        "systems": [
            {
                "name": system.name,
                "formula": system.start.system.to_ase().get_chemical_formula(),
                "n_atoms": system.start.system.n_atoms,
                **{name: getattr(system.settings, name) for name in OWN},
                "energy_shift_eV": shifts.get(index, 0.0),
            }
            for index, system in enumerate(plan.systems)
        ],
        "elements": sorted({z for own in plan.setup.systems for z, _ in own.composition}),
        "n_parameters": plan.n_parameters,
        "n_trained_parameters": plan.n_trained,
        # no epochs are chosen among, so the weight of an anchor means nothing
        "strategy": [list(row) for row in plan.strategy.explain() if row[0] != "anchor_weight"],
        "preflight": plan.preflight.to_json(),
        "labels_made": sum(row["labels"] for row in rows),
        "labels_failed": sum(row["failed"] for row in rows),
        "rounds": rows,
        "ended_early": reason,
        "versions": runtime.versions(),
    }
    return plain({**report, "verdict": judge_run(report, history)._asdict()})
