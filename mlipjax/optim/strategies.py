"""A fine-tuning strategy as data: parameter rules, loss terms and settings, each with the reason users are shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from mlipjax.losses import LossWeights, Pull
from mlipjax.optim.directions import ADAM, Adam, Direction, Muon
from mlipjax.optim.groups import Group, Rules
from mlipjax.optim.lora import Adapters, adapt, merge_adapters
from mlipjax.optim.optimizer import Hyper, OptimizerConfig, ScheduleName
from mlipjax.potential import Potential
from mlipjax.typing import Key, Params

GIVEN = "given"


@dataclasses.dataclass(frozen=True)
class Strategy:
    """A way to train a potential on new data.

    Attributes:
        name: key of ``STRATEGIES``.
        rules: parameter groups; ``None`` freezes.
        learning_rate: peak of the schedule.
        decay: base of the layer-wise decay, 1 for none.
        schedule, final_factor: shape of the schedule and its value at the end relative to the peak.
        warmup_fraction: part of all steps spent warming up.
        clip: largest gradient norm.
        ema_decay: decay of the parameter average that is validated and saved.
        optimizer: direction of the steps.
        from_scratch: whether training starts from fresh parameters.
        pull: loss term that draws the parameters to where they started: with equal weights ("l2sp"), or weighted
            by the Fisher information ("ewc").
        pull_strength: its factor.
        adapters: low-rank adapters that are trained in place of the kernels; ``rules`` are for their parameters.
        replay: whether structures are replayed through a head of their own, with true labels ("labels") or those of
            the frozen model ("model").
        replay_weight: factor of their loss.
        anchor_weight: what the loss on the anchor structures counts, beside the validation loss, for which epoch is
            kept.
        reasons: why a setting has its value, by field name.
    """

    name: str
    rules: Rules
    learning_rate: float
    decay: float = 1.0
    schedule: ScheduleName = "cosine"
    final_factor: float = 0.01
    warmup_fraction: float = 0.1
    clip: float = 1.0
    ema_decay: float = 0.999
    optimizer: Direction = ADAM
    from_scratch: bool = False
    pull: Literal["l2sp", "ewc"] | None = None
    pull_strength: float = 0.0
    adapters: Adapters | None = None
    replay: Literal["labels", "model"] | None = None
    replay_weight: float = 1.0
    anchor_weight: float = 0.1
    reasons: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def override(self, **settings: Any) -> Strategy:
        """Return the strategy with some settings given by the user; those that are ``None`` keep their default."""
        given = {name: value for name, value in settings.items() if value is not None}
        reasons = {**self.reasons, **dict.fromkeys(given, GIVEN)}
        return dataclasses.replace(self, **given, reasons=reasons)

    def attach(self, potential: Potential, params: Params, key: Key) -> tuple[Potential, Params]:
        """Return the potential and parameters that are trained: with adapters, if the strategy has them."""
        return (potential, params) if self.adapters is None else adapt(potential, params, self.adapters, key)

    def detach(self, params: Params) -> Params:
        """Return parameters of the original potential: with the adapters merged, if there are any."""
        return params if self.adapters is None else merge_adapters(params, self.adapters.scale)

    def optimizer_config(self, total_steps: int) -> OptimizerConfig:
        """Return the optimiser's configuration for a run of ``total_steps``."""
        return OptimizerConfig(
            rules=self.rules,
            total_steps=total_steps,
            warmup_steps=min(round(self.warmup_fraction * total_steps), total_steps - 1),
            schedule=self.schedule,
            final_factor=self.final_factor,
            clip=self.clip,
            ema_decay=self.ema_decay,
            direction=self.optimizer,
        )

    def hyper(self, weights: LossWeights, anchor: Params | None = None, importance: Params | None = None) -> Hyper:
        """Return the numbers of a run with these settings.

        Args:
            weights: factors of the loss terms.
            anchor: for a strategy with a pull, the parameters before training.
            importance: for "ewc", their Fisher information (``train.fisher_diagonal``).

        Raises:
            ValueError: if the pull's arguments are missing.
        """
        if self.pull is not None and (anchor is None or (importance is None) != (self.pull == "l2sp")):
            needed = "anchor" if self.pull == "l2sp" else "anchor and importance"
            raise ValueError(f"strategy {self.name!r} pulls by {self.pull}: hyper needs {needed}.")
        pull = Pull(self.pull_strength, anchor, importance) if self.pull is not None and anchor is not None else None
        scales = tuple(0.0 if group is None else group.scale for _, group in self.rules)
        return Hyper(learning_rate=self.learning_rate, decay=self.decay, scales=scales, weights=weights, pull=pull)

    def explain(self) -> list[tuple[str, str, str]]:
        """Return ``(setting, value, reason)`` of everything that matters, for a table."""
        shown = {
            "strategy": "strategy" in self.reasons,
            **dict.fromkeys(("rules", "optimizer", "learning_rate"), True),
            "decay": self.decay != 1.0 or "decay" in self.reasons,
            **dict.fromkeys(("schedule", "final_factor", "warmup_fraction", "clip", "ema_decay"), True),
            **dict.fromkeys(("pull", "pull_strength"), self.pull is not None),
            "adapters": self.adapters is not None,
            **dict.fromkeys(("replay", "replay_weight"), self.replay is not None),
            "anchor_weight": not self.from_scratch,
        }
        rows = [name for name, wanted in shown.items() if wanted]
        values = {"strategy": self.name, **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)}}
        return [(name, _show(values[name]), self.reasons.get(name, "")) for name in rows]


def _show(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Adam | Muon):
        return type(value).__name__
    if isinstance(value, Adapters):
        return f"rank {value.rank}, scale {value.scale:g}" + (", radial kernels too" if value.radial else "")
    return ", ".join(f"{pattern}: {_show_group(group)}" for pattern, group in value)


def _show_group(group: Group | None) -> str:
    if group is None:
        return "frozen"
    return f"decay^{group.power}" if group.power else f"{group.scale:g}"
