"""Fine-tuning strategies as data: parameter rules and default settings, each with the reason that users are shown.

Defaults start from the recipe of arXiv 2606.12704 (seven strategies on five benchmarks) and depart from it where a
measurement says so. Weight decay is 0 and loss weights are constant in all of them, as that study recommends.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mlipjax import tree
from mlipjax.losses import LossWeights
from mlipjax.optim.groups import Group, Rules, split
from mlipjax.optim.optimizer import Hyper, OptimizerConfig
from mlipjax.optim.schedules import ScheduleName
from mlipjax.typing import Params

_GIVEN = "given"


@dataclasses.dataclass(frozen=True)
class Strategy:
    """How a potential is trained on new data.

    Attributes:
        name: key of ``STRATEGIES``.
        rules: parameter groups; ``None`` freezes.
        learning_rate: peak of the schedule.
        decay: base of the layer-wise decay, 1 for none.
        schedule, final_factor: shape of the schedule and its value at the end relative to the peak.
        warmup_fraction: part of all steps spent warming up.
        clip: largest gradient norm.
        ema_decay: decay of the parameter average that is validated and saved.
        from_scratch: whether training starts from fresh parameters.
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
    from_scratch: bool = False
    reasons: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def override(self, **settings: Any) -> Strategy:
        """Return the strategy with some settings given by the user; those that are ``None`` keep their default."""
        given = {name: value for name, value in settings.items() if value is not None}
        reasons = {**self.reasons, **dict.fromkeys(given, _GIVEN)}
        return dataclasses.replace(self, **given, reasons=reasons)

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
        )

    def hyper(self, weights: LossWeights) -> Hyper:
        """Return the numbers of a run with these settings."""
        scales = tuple(0.0 if group is None else group.scale for _, group in self.rules)
        return Hyper(learning_rate=self.learning_rate, decay=self.decay, scales=scales, weights=weights)

    def explain(self) -> list[tuple[str, str, str]]:
        """Return ``(setting, value, reason)`` of everything that matters, for a table."""
        names = ["rules", "learning_rate", "decay", "schedule", "final_factor", "warmup_fraction", "clip", "ema_decay"]
        if self.decay == 1.0 and "decay" not in self.reasons:
            names.remove("decay")
        rows = [(name, getattr(self, name), self.reasons.get(name, "")) for name in names]
        return [(name, _show(value), reason) for name, value, reason in rows]


def make_strategy(
    name: str,
    params: Params,
    *,
    freeze_layers: int | None = None,
    layer_decay: float | None = None,
    layer_multipliers: Sequence[float] | None = None,
) -> Strategy:
    """Return a strategy for the parameters of one potential.

    Args:
        name: ``naive``, ``freeze``, ``llrd`` or ``scratch``.
        params: parameters with ``layer_<i>/...`` below ``readout...``; only their names are read.
        freeze_layers: for ``freeze``, how many layers from the bottom to freeze (embeddings included); half of
            them by default.
        layer_decay: for ``llrd``, ratio of the learning rates of neighbouring layers, in (0, 1].
        layer_multipliers: for ``llrd``, one learning-rate multiplier per layer from the bottom instead.

    Raises:
        ValueError: for an unknown name, an option of another strategy, or options that do not fit the layers.
    """
    if name not in STRATEGIES:
        raise ValueError(f"unknown strategy {name!r}; choose one of {', '.join(STRATEGIES)}.")
    options = {
        "freeze_layers": freeze_layers,
        "layer_decay": layer_decay,
        "layer_multipliers": layer_multipliers,
    }
    given = {option: value for option, value in options.items() if value is not None}
    takes = _OPTIONS.get(name, ())
    for option in given:
        if option not in takes:
            raise ValueError(f"strategy {name!r} has no option {option}; it takes {', '.join(takes) or 'none'}.")
    strategy = STRATEGIES[name](params, **given)
    split(params, strategy.rules)
    return strategy


def layer_count(params: Params) -> int:
    """Number of message-passing layers, from parameter paths ``layer_<i>/...``.

    Raises:
        ValueError: if there is none, or the numbers are not 0, 1, 2, ...
    """
    paths = tree.flatten_paths(params)
    found = {int(match[1]) for path in paths if (match := re.match(r"layer_(\d+)/", path))}
    if not found or found != set(range(len(found))):
        raise ValueError(f"expected parameters layer_0/..., layer_1/..., found layers {sorted(found)}.")
    return len(found)


_SHARED_REASONS = {
    "schedule": "warm-up, then cosine: 5e-4 falls steadily on 50 frames of a 197-atom liquid, while 1e-3 without "
    "warm-up first overshoots to 76 meV/atom",
    "warmup_fraction": "Adam's second moments need some tens of steps to settle",
    "final_factor": "small enough that the last steps no longer move the error",
    "clip": "recipe: 1.0 for full and partial fine-tuning",
    "ema_decay": "recipe: 0.999 (its rate is higher in the first steps, so that short runs do not lag)",
}
_FULL_RATE = (
    5e-4,
    "half the recipe's 1e-3: small sets of large frames mean few, correlated gradients (see schedule)",
)


def _naive(params: Params) -> Strategy:
    rate, reason = _FULL_RATE
    rules = ((tree.EVERYTHING, Group()),)
    reasons = {**_SHARED_REASONS, "learning_rate": reason, "rules": "all parameters: best for one system"}
    return Strategy("naive", rules, rate, reasons=reasons)


def _freeze(params: Params, freeze_layers: int | None = None) -> Strategy:
    n_layers = layer_count(params)
    depth = n_layers // 2 if freeze_layers is None else freeze_layers
    if not 0 <= depth <= n_layers:
        raise ValueError(f"freeze_layers must lie between 0 and {n_layers}, the number of layers; found {depth}.")
    rate, reason = _FULL_RATE
    rules = [(f"layer_{layer}/.*", None) for layer in range(depth)]
    if depth > 0 and _has_embedding(params):
        rules.insert(0, ("embedding.*", None))
    if freeze_layers is None:
        why = f"the lower {depth} of {n_layers} layers frozen; all but the readout is too restrictive (recipe)"
    else:
        why = _GIVEN
    reasons = {**_SHARED_REASONS, "learning_rate": reason, "rules": why}
    return Strategy("freeze", (*rules, (tree.EVERYTHING, Group())), rate, reasons=reasons)


def _llrd(
    params: Params, layer_decay: float | None = None, layer_multipliers: Sequence[float] | None = None
) -> Strategy:
    n_layers = layer_count(params)
    rate, reason = _FULL_RATE
    reasons = {**_SHARED_REASONS, "learning_rate": reason}
    if layer_multipliers is None:
        groups = [Group(power=n_layers - layer) for layer in range(n_layers)]
        decay = 0.75 if layer_decay is None else layer_decay
        if not 0.0 < decay <= 1.0:
            raise ValueError(f"layer_decay must lie in (0, 1], found {decay}.")
        published = "closest constant ratio to the published table .30 .40 .55 .625 (arXiv 2601.08486)"
        reasons["decay"] = published if layer_decay is None else _GIVEN
        reasons["rules"] = "one power of the decay per layer below the readout"
    else:
        fits = len(layer_multipliers) == n_layers and all(value >= 0.0 for value in layer_multipliers)
        if layer_decay is not None or not fits:
            raise ValueError(
                f"layer_multipliers needs {n_layers} numbers >= 0, one per layer, and no layer_decay beside them; "
                f"found {layer_multipliers} and {layer_decay}."
            )
        groups = [Group(scale=float(value)) for value in layer_multipliers]
        decay = 1.0
        reasons["rules"] = _GIVEN
    rules = [("readout.*", Group()), *((f"layer_{layer}/.*", group) for layer, group in enumerate(groups))]
    if _has_embedding(params):
        rules.append(("embedding.*", groups[0]))
    return Strategy("llrd", tuple(rules), rate, decay=decay, reasons=reasons)


def _scratch(params: Params) -> Strategy:
    reasons = {
        **_SHARED_REASONS,
        "learning_rate": "fresh parameters have to move far; the usual range for such networks is 1e-3 to 1e-2",
        "rules": "all parameters, initialised anew",
        "schedule": "warm-up, then cosine, as for fine-tuning: one setting less that differs in comparisons",
    }
    return Strategy("scratch", ((tree.EVERYTHING, Group()),), 5e-3, from_scratch=True, reasons=reasons)


def _has_embedding(params: Params) -> bool:
    return any(path.startswith("embedding") for path in tree.flatten_paths(params))


def _show(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(f"{pattern}: {_show_group(group)}" for pattern, group in value)


def _show_group(group: Group | None) -> str:
    if group is None:
        return "frozen"
    return f"decay^{group.power}" if group.power else f"{group.scale:g}"


STRATEGIES: dict[str, Callable[..., Strategy]] = {
    "naive": _naive,
    "freeze": _freeze,
    "llrd": _llrd,
    "scratch": _scratch,
}
"""What ``make_strategy`` knows, by name."""

_OPTIONS = {"freeze": ("freeze_layers",), "llrd": ("layer_decay", "layer_multipliers")}
