"""Settings of a periodic fine-tune, as one typed record: the command line's options and the Python call's arguments."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro

from mlipjax.defaults import ATMOSPHERE_BAR, Precision
from mlipjax.settings.finetune import FinetuneSettings

Select = Literal["interval", "random", "uncertain", "diverse", "uncertain-diverse", "alarm"]
"""Ways to choose the frames that are labelled."""


@dataclasses.dataclass(frozen=True)
class SystemSettings:
    """A structure to start from, and how it is simulated; what is not given is as for the whole run.

    Attributes:
        structure: a file that ASE reads (its last structure), or ``Atoms``.
        ensemble: constant energy, temperature, or temperature and isotropic pressure.
        temperature: K; several are as many systems.
        pressure: bar, for npt.
        timestep: fs; by default that of its elements.
        replicas: trajectories side by side.
        labels_per_round: its frames labelled in each round, over its replicas.
        steps: MD steps between two labels.
        weight: factor of its labels in the loss.
    """

    structure: Any = None
    ensemble: Literal["nvt", "npt", "nve"] | None = None
    temperature: float | tuple[float, ...] | None = None
    pressure: float | None = None
    timestep: float | None = None
    replicas: int | None = None
    labels_per_round: int | None = None
    steps: int | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        _check_settings(self)
        if not 0.0 < self.weight < float("inf"):
            raise ValueError(f"weight must be positive, found {self.weight}.")


@dataclasses.dataclass(frozen=True)
class PeriodicSettings:
    """Everything that decides the numbers of a periodic fine-tune besides model, structures and oracle.

    A round is: MD by the model, labels for frames along it, a fine-tune on all labels so far. What is said of a
    structure holds for each that has no setting of its own (``SystemSettings``).

    Attributes:
        rounds: rounds; every round's model drives the next one.
        labels_per_round: frames of a structure labelled in each, over all its replicas.
        steps: MD steps between two labels.
        train_steps: optimiser steps of the fine-tune at the end of a round.
        replicas: trajectories of a structure side by side, with velocities and noise of their own.
        ensemble: constant energy, temperature, or temperature and isotropic pressure.
        temperature: K; for nve that of the first velocities. Several simulate every structure at each of them.
        pressure: bar, for npt.
        timestep: fs; by default 0.5 with hydrogen, 1 with other light atoms, 2 otherwise.
        strategy: what is trained and how fast: those of a fine-tune on energies and forces, but scratch, which has
            nothing to drive the first round with.
        optimizer: "muon" (steps of kernels are made orthogonal) or "adam"; by default the strategy's.
        learning_rate: peak learning rate; by default the strategy's.
        batch_size: frames per optimiser step; of several structures, and frames from before, in proportion to how many
            there will be, and one at least.
        age_weight: factor of a label in the loss for every round of its age; below 1 old ones fade.
        freeze_layers: for "freeze", or added to replay, l2sp, ewc: number of layers held fixed, from the bottom.
        layer_decay: for "llrd", or likewise: ratio of the learning rates of neighbouring layers.
        layer_multipliers: for "llrd", or likewise: one factor per layer from the bottom instead.
        l2sp: strength of a pull to the pretrained weights; adds it to any strategy but lora.
        ewc: the same, weighted by the Fisher information of frames from before, or replayed ones with true labels.
        lora_rank: for "lora": rank of the adapters.
        lora_radial: for "lora": adapt radial kernels too.
        replay: structures to replay: with true labels of the model's own level of theory for "replay"; for
            "pseudo-replay" any structures, by default generated ones.
        replay_size: number of generated structures.
        replay_weight: factor of the replay loss; by default the strategy's.
        e0s: "estimate" takes the mean difference to the first labels off all energies, as far as a constant per
            element explains it, whatever zero the oracle has; "model" keeps the model's zero, for an oracle that
            shares it; or a JSON file of isolated-atom energies, or "isolated", of the isolated atoms among frames from
            before. With frames from before, "estimate" is a least-squares fit to them before the first step.
        on_alarm: read the charts of the labelled frames after every few steps of MD, and on an alarm: "ignore" (count
            it), "stop" (save the frame), "label" it at once and train, or "rollback" (label, train, and return to the
            last state in control). The last two end a round early, with fewer labels. "off" reads none.
        select: which frames are labelled, of ``sample_factor`` times as many along the same MD: "interval" (the last of
            ``steps`` each; no others are looked at), "random", "uncertain" (whose forces have the largest error bars
            by the last layer's posterior), "diverse" (farthest-point in features per element), "uncertain-diverse"
            (the same, distances times error bars) or "alarm" (largest index of the charts, which ``on_alarm`` must
            have read). While nothing is known, as in the first round, "uncertain" and "alarm" take intervals.
        sample_factor: frames sampled for each that is labelled; a divisor of ``steps``.
        until_force_rmse: stop after the round in which the force RMSE on labels that were not seen is below this, in
            meV/Å, and more than half of the frames are for all that can be told (5 % error, however often one looks).
        until_alarm_rate: stop when the charts raise an alarm in less than this share of replicas and rounds; likewise.
        asynchronous: do not wait for the labels of a round: train on those that have come, and wait for the others
            before the next round trains. Shorter where labels are slow; numbers then depend on timing.
        seed: of velocities, noise and the order of frames.
        dtype: precision of MD and training.
        precision: of the network's float32 products on GPUs and TPUs: in full, or faster with "high" (forces err by
            1 meV/Å rms on GPUs, 0.01 on TPUs) or "default" (1 and 6 meV/Å). On CPUs all three are the same.
    """

    rounds: int = 5
    labels_per_round: int = 5
    steps: int = 100
    train_steps: int = 100
    replicas: int = 1
    ensemble: Literal["nvt", "npt", "nve"] = "nvt"
    temperature: float | tuple[float, ...] = 300.0
    pressure: float = ATMOSPHERE_BAR
    timestep: float | None = None
    strategy: Literal["naive", "freeze", "llrd", "lora", "replay", "pseudo-replay", "l2sp", "ewc"] = "naive"
    optimizer: Literal["muon", "adam"] | None = None
    learning_rate: Annotated[float | None, tyro.conf.arg(aliases=("--lr",))] = None
    batch_size: int = 5
    age_weight: float = 1.0
    freeze_layers: int | None = None
    layer_decay: float | None = None
    layer_multipliers: tuple[float, ...] | None = None
    l2sp: float | None = None
    ewc: float | None = None
    lora_rank: int | None = None
    lora_radial: bool | None = None
    replay: str | None = None
    replay_size: int | None = None
    replay_weight: float | None = None
    e0s: str = "estimate"
    on_alarm: Literal["off", "ignore", "stop", "label", "rollback"] = "off"
    select: Select = "interval"
    sample_factor: int = 5
    until_force_rmse: float | None = None
    until_alarm_rate: float | None = None
    asynchronous: bool = False
    seed: int = 0
    dtype: Literal["float32", "float64"] = "float32"
    precision: Precision = "highest"

    def __post_init__(self) -> None:
        _check_settings(self)
        if (rate := self.until_alarm_rate) is not None:
            if not 0.0 < rate < 1.0:
                raise ValueError(f"until_alarm_rate must be between 0 and 1, found {rate}.")
            if self.on_alarm == "off":
                raise ValueError(
                    f"until_alarm_rate={rate} needs charts that raise alarms; choose on_alarm ignore or label."
                )
        if self.select != "interval":
            self._check_selection()
        self.training()

    def _check_selection(self) -> None:
        if self.on_alarm in ("label", "rollback"):
            raise ValueError(
                f"select={self.select} chooses among the frames of a whole round, which on_alarm={self.on_alarm} "
                "interrupts; choose on_alarm off, ignore or stop."
            )
        if self.select == "alarm" and self.on_alarm == "off":
            raise ValueError("select=alarm needs charts; choose on_alarm ignore.")

    def training(self) -> FinetuneSettings:
        """The settings of the fine-tune at the end of a round.

        Raises:
            ValueError: for numbers that no fine-tune can honour.
        """
        shared = {field.name for field in dataclasses.fields(FinetuneSettings)}
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return FinetuneSettings(
            anchor="none", **{name: value for name, value in given.items() if name in shared and value is not None}
        )

    def at_each_temperature(self, system: SystemSettings) -> tuple[SystemSettings, ...]:
        """A system at each of its temperatures, or of the run's where it has none of its own."""
        several = self.temperature if system.temperature is None else system.temperature
        if not isinstance(several, tuple):
            return (system,)
        return tuple(dataclasses.replace(system, temperature=kelvin) for kelvin in several)

    def of(self, system: SystemSettings) -> SystemSettings:
        """The settings of a system, completed by those of the run.

        Raises:
            ValueError: if its replicas cannot share its labels.
        """
        names = [field.name for field in dataclasses.fields(SystemSettings) if hasattr(self, field.name)]
        own = dataclasses.replace(
            system, **{name: getattr(self, name) for name in names if getattr(system, name) is None}
        )
        if (own.labels_per_round or 0) % (own.replicas or 1):
            raise ValueError(
                f"labels_per_round={own.labels_per_round} must be a multiple of replicas={own.replicas}: every "
                "replica gives as many frames."
            )
        if self.select != "interval" and (own.steps or 1) % self.sample_factor:
            raise ValueError(
                f"steps={own.steps} must be a multiple of sample_factor={self.sample_factor}: frames are sampled so "
                "many times between two labels."
            )
        return own


def _check_settings(settings: Any) -> None:
    """Refuse numbers and words that no run can honour, by the names of fields; ``None`` is no setting."""
    given = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    given = {name: value for name, value in given.items() if value is not None}
    for name in _COUNTS & set(given):
        if given[name] < 1:
            raise ValueError(f"{name} must be at least 1, found {given[name]}.")
    for name in _POSITIVE & set(given):
        values = given[name] if isinstance(given[name], tuple) else (given[name],)
        if not values or not all(0.0 < value < float("inf") for value in values):
            raise ValueError(f"{name} must be positive, found {given[name]}.")
    for name, hint in get_type_hints(type(settings)).items():
        words = [word for kind in (hint, *get_args(hint)) if get_origin(kind) is Literal for word in get_args(kind)]
        if words and name in given and given[name] not in words:
            raise ValueError(f"{name} is {given[name]!r}; choose one of {', '.join(words)}.")


_COUNTS = {"rounds", "labels_per_round", "steps", "train_steps", "replicas", "batch_size", "sample_factor"}
_POSITIVE = {"temperature", "timestep", "learning_rate", "until_force_rmse", "age_weight"}
