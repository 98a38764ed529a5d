"""Everything that is fixed before the first step of a periodic fine-tune, and what is known by then."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mlipjax import tree
from mlipjax.data import Dataset
from mlipjax.data.splits import IsolatedAtoms, set_apart
from mlipjax.defaults import COMPONENTS
from mlipjax.dispersion import D3BJ
from mlipjax.doctor import Finding, examine, refuse_fatal
from mlipjax.finetuning.alarm import AlarmConfig
from mlipjax.finetuning.compiled import SystemStart, init
from mlipjax.finetuning.given import make_stack, make_stacks, share_batch, size_groups
from mlipjax.finetuning.retain import REPLAY_HEAD, add_head, make_retention
from mlipjax.finetuning.setup import Controls, FrameStack, RoundConfig, Setup, SystemControls, SystemSetup
from mlipjax.finetuning.state import FineTuneState
from mlipjax.graph import VerletSpec
from mlipjax.losses import LossWeights
from mlipjax.md import Start, default_limits, default_timestep, make_ensemble, masses_of
from mlipjax.optim import Optimizer, Strategy, make_strategy
from mlipjax.potential import Model, Potential
from mlipjax.settings import PeriodicSettings, SystemSettings
from mlipjax.train import ForceField, LabelledBatches, fisher_diagonal, read_e0s, set_e0s, settle_e0s
from mlipjax.typing import Params


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


class Preflight(NamedTuple):
    """Facts known before the first step.

    Attributes:
        n_labels: that the oracle will be asked for.
        findings: of the doctor in frames from before, none of them fatal.
        before: errors of the model on these frames (``train.error_report``); ``None`` without any.
        n_given, n_replayed: frames from before, and replayed ones.
        notes: on what is replayed, and how E0s were settled.
        seconds: of one energy with forces of each system, measured.
        hours: of all MD and training by these, roughly: a gradient is taken to cost as much as three.
        training_bytes: memory that training takes, of its compiled program; ``None`` if that is not known.
    """

    n_labels: int
    findings: tuple[Finding, ...]
    before: dict[str, Any] | None
    n_given: int
    n_replayed: int
    notes: tuple[str, ...]
    seconds: tuple[float, ...]
    hours: float
    training_bytes: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return everything in JSON types."""
        return {**self._asdict(), "findings": [finding.to_json() for finding in self.findings]}


class Plan(NamedTuple):
    """A periodic fine-tune ready to start.

    Attributes:
        settings: of the run.
        systems: with complete settings.
        setup, controls: static parts, and the numbers of the run.
        state: before the first round.
        strategy: what is trained and how fast.
        n_parameters, n_trained: numbers of the model (without adapters), and those that are trained.
        preflight: what is known by now.
    """

    settings: PeriodicSettings
    systems: tuple[Simulated, ...]
    setup: Setup
    controls: Controls
    state: FineTuneState
    strategy: Strategy
    n_parameters: int
    n_trained: int
    preflight: Preflight


def plan_periodic(
    model: Model,
    systems: Sequence[Simulated],
    settings: PeriodicSettings,
    data: Dataset | None = None,
    dispersion: D3BJ | None = None,
) -> Plan:
    """Make everything that is fixed before the first step.

    Args:
        model: that drives the first round; its first energy head is trained.
        systems: what is simulated, at least one.
        settings: everything else.
        data: labelled frames from before, with total energies, to train on from the first round on.
        dispersion: added to the model in MD.

    Raises:
        ValueError: for elements the model does not know, settings that do not fit each other, an ensemble that
            cannot simulate a structure, or a fatal finding of the doctor in ``data``.
    """
    systems = tuple(_complete(model.potential, system, settings) for system in systems)
    training, key = settings.training(), jax.random.key(settings.seed)
    model = Model(model.potential.replace(precision=settings.precision), tree.cast(model.params, settings.dtype))
    strategy = make_strategy(settings.strategy, model.params, **training.strategy_options())
    strategy = strategy.override(learning_rate=settings.learning_rate)
    isolated = None if data is None else set_apart(data)
    findings, before, notes = _examined(model, data, settings)
    plain, params = add_head(model) if strategy.replay else model
    plain, note = _settled(Model(plain, params), isolated, systems, settings)
    notes += note
    replayed, said, found = None, {"replay": None}, []
    if strategy.replay:
        retention, said, found = make_retention(strategy, plain, model, _elements(systems), training)
        replayed = retention.replay
    potential, params = strategy.attach(plain, params, key)
    optimizer = Optimizer(strategy.optimizer_config(settings.train_steps))
    given, sizes = _given(plain, isolated, systems, settings)
    setups = tuple(_system_setup(plain, system, size, settings) for system, size in zip(systems, sizes, strict=True))
    setup = Setup(
        potential,
        setups,
        _round_config(settings, estimate=settings.e0s == "estimate" and data is None),
        optimizer,
        training.make_loss(),
        *((None, None) if strategy.adapters is None else (plain, strategy.adapters)),
        dispersion=dispersion,
    )
    known = None
    if strategy.pull == "ewc":
        known = replayed if strategy.replay == "labels" else isolated and _batches(plain, isolated, settings)
    controls = Controls(
        hyper=_hyper(strategy, setup, params, known),
        systems=tuple(map(_system_controls, systems)),
        given=given,
        replay=_replayed(plain, replayed, settings),
        replay_weight=strategy.replay_weight,
        age_weight=settings.age_weight,
    )
    starts = [_start(system, settings.rounds) for system in systems]
    state = init(setup, params, starts, controls, key)
    n_trained, n_parameters = tree.count(optimizer.split(params)[0]), tree.count(strategy.detach(params))
    seconds = _timed(setup, params, starts, controls, key)
    preflight = Preflight(
        n_labels=sum(start.capacity for start in starts),
        findings=(*findings, *found),
        before=before,
        n_given=sum(len(stack.labelled) for stack in controls.given),
        n_replayed=sum(len(stack.labelled) for stack in controls.replay),
        notes=(*notes, *([f"replayed: {said['replay']}"] if said["replay"] else [])),
        seconds=seconds,
        hours=_hours(setup, starts, settings, seconds),
    )
    return Plan(settings, systems, setup, controls, state, strategy, n_parameters, n_trained, preflight)


def _elements(systems: Sequence[Simulated]) -> list[int]:
    return sorted({int(z) for system in systems for z in system.start.system.atomic_numbers})


def _examined(
    model: Model, data: Dataset | None, settings: PeriodicSettings
) -> tuple[list[Finding], dict[str, Any] | None, tuple[str, ...]]:
    """Findings of the doctor in frames from before, and errors of the model on them; fatal ones end here."""
    if data is None:
        return [], None, ()
    found = examine(model, {"data": data}, e0s=settings.e0s, dtype=settings.dtype)
    refuse_fatal(found.findings)
    estimate = found.e0_estimate
    note = () if estimate is None else (f"E0s: a least-squares fit to {estimate.n_structures} frames from before",)
    return found.findings, found.before.get("data"), note


def _settled(
    model: Model, isolated: IsolatedAtoms | None, systems: Sequence[Simulated], settings: PeriodicSettings
) -> tuple[Potential, tuple[str, ...]]:
    """The potential with the isolated-atom energies asked for; without frames, an estimate is the first round's."""
    if isolated is not None:
        potential, _ = settle_e0s(
            *model, _batches(model.potential, isolated, settings), settings.e0s, isolated.energies
        )
        return potential, ()
    if settings.e0s == "isolated":
        raise ValueError(
            'e0s="isolated" takes the energies of isolated atoms among frames from before; give some (data).'
        )
    if settings.e0s in ("model", "estimate"):
        return model.potential, ()
    return set_e0s(model.potential, read_e0s(settings.e0s), _elements(systems)), (f"E0s: of {settings.e0s}",)


def _batches(potential: Potential, isolated: IsolatedAtoms, settings: PeriodicSettings) -> LabelledBatches:
    return LabelledBatches.create(potential, isolated.rest, _TOGETHER, dtype=settings.dtype)


def _given(
    potential: Potential, isolated: IsolatedAtoms | None, systems: Sequence[Simulated], settings: PeriodicSettings
) -> tuple[tuple[FrameStack, ...], list[int]]:
    """Stacks of frames from before, and how many frames of each system are in an optimiser step."""
    groups = [] if isolated is None else size_groups([system.n_atoms for system in isolated.rest.systems])
    labels = [system.settings.labels_per_round or 1 for system in systems]
    amounts = [*(settings.rounds * count for count in labels), *map(len, groups)]
    sizes = share_batch(settings.batch_size, amounts, [*labels, *map(len, groups)])
    stacks = [
        make_stack(potential, isolated.rest.subset(rows.tolist()), size, settings.dtype)
        for rows, size in zip(groups, sizes[len(labels) :], strict=True)
        if isolated is not None
    ]
    return tuple(stacks), sizes[: len(labels)]


def _replayed(
    potential: Potential, replayed: LabelledBatches | None, settings: PeriodicSettings
) -> tuple[FrameStack, ...]:
    if replayed is None:
        return ()
    head = potential.heads.index(REPLAY_HEAD)
    return tuple(make_stacks(potential, replayed.dataset, settings.batch_size, settings.dtype, head))


def _hyper(strategy: Strategy, setup: Setup, params: Params, known: LabelledBatches | None) -> Any:
    weights = LossWeights()
    if strategy.pull != "ewc":
        return strategy.hyper(weights, params if strategy.pull else None)
    if known is None:
        raise ValueError(
            "ewc weighs parameters by what labelled frames say of them; give some (data), replay some with true "
            "labels, or choose l2sp."
        )
    objective = ForceField(setup.potential, setup.loss)
    return strategy.hyper(weights, params, fisher_diagonal(objective, setup.optimizer, params, known, weights))


def _timed(
    setup: Setup, params: Params, starts: Sequence[SystemStart], controls: Controls, key: Any
) -> tuple[float, ...]:
    """Seconds of one energy with forces of each system: starting it once more takes little else."""
    seconds = []
    for index in range(len(starts)):
        alone = dataclasses.replace(setup, systems=setup.systems[index : index + 1])
        numbers = controls.replace(systems=controls.systems[index : index + 1])  # pyright: ignore
        began = time.monotonic()
        jax.block_until_ready(
            init(alone, params, starts[index : index + 1], numbers, key).systems[0].sim.dynamics.force
        )
        seconds.append(time.monotonic() - began)
    return tuple(seconds)


def _hours(setup: Setup, starts: Sequence[SystemStart], settings: PeriodicSettings, seconds: Sequence[float]) -> float:
    """Hours of MD and training, without labels and compilation."""
    total = 0.0
    for own, start, each in zip(setup.systems, starts, seconds, strict=True):
        steps = own.frames_per_replica * own.chunks_per_frame * own.steps_per_chunk * start.n_replicas
        total += settings.rounds * each * (steps + _GRADIENT * own.batch_size * settings.train_steps)
    return total / 3600.0


_TOGETHER = 8
_GRADIENT = 3.0
"""Cost of a gradient of the loss in energies with forces, roughly."""


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


def _system_setup(potential: Potential, system: Simulated, batch_size: int, settings: PeriodicSettings) -> SystemSetup:
    own, start = system.settings, system.start.system
    steps, labels, replicas = own.steps or 1, own.labels_per_round or 1, own.replicas or 1
    factor = 1 if settings.select == "interval" else settings.sample_factor
    steps = steps // factor
    steps_per_chunk = next(n for n in range(min(10, steps), 0, -1) if steps % n == 0)
    numbers, counts = np.unique(start.atomic_numbers, return_counts=True)
    return SystemSetup(
        spec=VerletSpec.for_systems([start], potential.cutoff),
        composition=tuple(zip(numbers.tolist(), counts.tolist(), strict=True)),
        labels_per_replica=labels // replicas,
        chunks_per_frame=steps // steps_per_chunk,
        steps_per_chunk=steps_per_chunk,
        batch_size=batch_size,
        sample_factor=factor,
    )


def _system_controls(system: Simulated) -> SystemControls:
    own, start = system.settings, system.start
    numbers: Any = own.timestep, own.temperature, own.pressure  # each is one by now
    step, kelvin, bar = map(float, numbers)
    ensemble = make_ensemble(own.ensemble or "nvt", timestep_fs=step, temperature_K=kelvin, pressure_bar=bar)
    return SystemControls(ensemble, default_limits(kelvin, start.system.n_atoms, freedom=start.freedom), own.weight)


def _start(system: Simulated, rounds: int) -> SystemStart:
    own = system.settings
    start = dataclasses.replace(system.start, momenta=None)
    return SystemStart(start, own.replicas or 1, capacity=rounds * (own.labels_per_round or 1))


def _round_config(settings: PeriodicSettings, *, estimate: bool) -> RoundConfig:
    alarm, components = (None, 0) if settings.on_alarm == "off" else (AlarmConfig(settings.on_alarm), COMPONENTS)
    return RoundConfig(settings.train_steps, components, alarm, estimate, settings.select)


OWN = {field.name: field.default for field in dataclasses.fields(SystemSettings) if field.name != "structure"}
"""Settings that a system can have of its own, and their defaults."""
