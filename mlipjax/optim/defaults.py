"""Each strategy by itself: rules, default settings and their reasons (``recipes`` chooses among them)."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mlipjax import tree
from mlipjax.optim.directions import Adam, Direction, Muon
from mlipjax.optim.groups import Group, Rules
from mlipjax.optim.lora import ADAPTERS, BASE, Adapters
from mlipjax.optim.strategies import GIVEN, Strategy
from mlipjax.typing import Params


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
    "schedule": "warm-up, then cosine: the first steps of full length overshoot by tens of meV/atom",
    "warmup_fraction": "momentum and Adam's second moments need some tens of steps to settle",
    "final_factor": "small enough that the last steps no longer move the error",
    "clip": "recipe: 1.0 for full and partial fine-tuning",
    "ema_decay": "recipe: 0.999 (its rate is higher in the first steps, so that short runs do not lag)",
    "anchor_weight": "of two epochs with like errors the one that forgot less is kept; accuracy is not given up for it",
}
OPTIMIZERS: dict[str, tuple[Direction, float, str]] = {
    "muon": (
        Muon(),
        1e-3,
        "best of 6e-4, 1e-3 and 2e-3 after 80 gradients on frames of a 197-atom liquid (experiments.defaults)",
    ),
    "adam": (
        Adam(),
        5e-4,
        "half the recipe's 1e-3: small sets of large frames mean few, correlated gradients; without warm-up 1e-3 "
        "overshoots to 76 meV/atom",
    ),
}
"""Directions of steps by name, each with its learning rate and the reason of that."""
_MUON = (
    "fewest gradients of those tried: with 150 frames nequix-mp-1 comes from 120 to 52 meV/Å on a 197-atom liquid, by "
    "Adam to 82; it forgets more (experiments.defaults)"
)
_OWN = {"optimizer": "the recipe's; others were not measured for this strategy"}


def with_optimizer(strategy: Strategy, name: str) -> Strategy:
    """Return the strategy with another optimiser, and the learning rate that goes with it.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"unknown optimizer {name!r}; choose one of {', '.join(OPTIMIZERS)}.")
    direction, rate, reason = OPTIMIZERS[name]
    if direction == strategy.optimizer:
        return dataclasses.replace(strategy, reasons={**strategy.reasons, "optimizer": GIVEN})
    reasons = {**strategy.reasons, "optimizer": GIVEN, "learning_rate": reason}
    return dataclasses.replace(strategy, optimizer=direction, learning_rate=rate, reasons=reasons)


def _fine_tune(name: str, rules: Rules, reasons: Mapping[str, str], **settings: Any) -> Strategy:
    """A strategy that moves weights of a pretrained model, with the optimiser that needs the fewest gradients."""
    optimizer, rate, reason = OPTIMIZERS["muon"]
    reasons = {**_SHARED_REASONS, "optimizer": _MUON, "learning_rate": reason, **reasons}
    return Strategy(name, rules, rate, optimizer=optimizer, reasons=reasons, **settings)


def make_naive(params: Params) -> Strategy:
    """All parameters, alike."""
    return _fine_tune("naive", ((tree.EVERYTHING, Group()),), {"rules": "all parameters: best for one system"})


def make_freeze(params: Params, freeze_layers: int | None = None) -> Strategy:
    """The lower layers held fixed."""
    n_layers = layer_count(params)
    depth = n_layers // 2 if freeze_layers is None else freeze_layers
    if not 0 <= depth <= n_layers:
        raise ValueError(f"freeze_layers must lie between 0 and {n_layers}, the number of layers; found {depth}.")
    rules = [(f"layer_{layer}/.*", None) for layer in range(depth)]
    if depth > 0 and _has_embedding(params):
        rules.insert(0, ("embedding.*", None))
    if freeze_layers is None:
        why = f"the lower {depth} of {n_layers} layers frozen; all but the readout is too restrictive (recipe)"
    else:
        why = GIVEN
    return _fine_tune("freeze", (*rules, (tree.EVERYTHING, Group())), {"rules": why})


def make_llrd(
    params: Params, layer_decay: float | None = None, layer_multipliers: Sequence[float] | None = None
) -> Strategy:
    """Layer-wise learning rates."""
    n_layers = layer_count(params)
    reasons = {}
    if layer_multipliers is None:
        groups = [Group(power=n_layers - layer) for layer in range(n_layers)]
        decay = 0.75 if layer_decay is None else layer_decay
        if not 0.0 < decay <= 1.0:
            raise ValueError(f"layer_decay must lie in (0, 1], found {decay}.")
        published = "closest constant ratio to the published table .30 .40 .55 .625 (arXiv 2601.08486)"
        reasons["decay"] = published if layer_decay is None else GIVEN
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
        reasons["rules"] = GIVEN
    rules = [("readout.*", Group()), *((f"layer_{layer}/.*", group) for layer, group in enumerate(groups))]
    if _has_embedding(params):
        rules.append(("embedding.*", groups[0]))
    return _fine_tune("llrd", tuple(rules), reasons, decay=decay)


def make_scratch(params: Params) -> Strategy:
    """Fresh parameters."""
    reasons = {
        **_SHARED_REASONS,
        **_OWN,
        "learning_rate": "fresh parameters have to move far; the usual range for such networks is 1e-3 to 1e-2",
        "rules": "all parameters, initialised anew",
        "schedule": "warm-up, then cosine, as for fine-tuning: one setting less that differs in comparisons",
    }
    return Strategy("scratch", ((tree.EVERYTHING, Group()),), 5e-3, from_scratch=True, reasons=reasons)


def make_l2sp(params: Params, **layers: Any) -> Strategy:
    """A pull to the pretrained weights, all alike."""
    return with_pull(_base("l2sp", params, layers), "l2sp", None)


def make_ewc(params: Params, **layers: Any) -> Strategy:
    """The same, weighted by the Fisher information."""
    return with_pull(_base("ewc", params, layers), "ewc", None)


_PULL_STRENGTH = {"l2sp": 1e-2, "ewc": 1e-2}
_PULL_REASONS = {
    "l2sp": "pull towards the pretrained weights, all alike (L2-SP, arXiv 1802.01483)",
    "ewc": "pull towards the pretrained weights, by their Fisher information, scaled to mean 1 (PNAS 114, 3521)",
}


def with_pull(strategy: Strategy, kind: str, strength: float | None) -> Strategy:
    """Add a pull (``"l2sp"`` or ``"ewc"``) to a strategy, with its default strength for ``None``."""
    default = "lower end of the published range for L2-SP (0.01-0.1): holds the weights and lets the labels win"
    reasons = {
        **strategy.reasons,
        "pull": _PULL_REASONS[kind],
        "pull_strength": default if strength is None else GIVEN,
    }
    value = _PULL_STRENGTH[kind] if strength is None else float(strength)
    return dataclasses.replace(strategy, pull=kind, pull_strength=value, reasons=reasons)


def make_lora(params: Params, lora_rank: int | None = None, lora_radial: bool = False) -> Strategy:
    """Low-rank adapters in place of the kernels."""
    adapters = Adapters(16 if lora_rank is None else lora_rank, radial=lora_radial)
    rules: Rules = ((f"{ADAPTERS}/.*", Group()), (f"{BASE}/readout.*", Group()), (f"{BASE}/.*", None))
    reasons = {
        **_SHARED_REASONS,
        **_OWN,
        "rules": "adapters and readouts; every other parameter of the model is frozen",
        "learning_rate": "a tenth of the recipe's 1e-2, with which the force error on frames of a 170-atom liquid rose "
        "from 18 to 122 meV/Å in 8 steps (these adapters change a kernel by the whole rate per step)",
        "clip": "recipe: 10 for LoRA",
        "ema_decay": "recipe: 0.99 for LoRA",
        "adapters": "within the recipe's ranks of 4 to 64" if lora_rank is None else GIVEN,
    }
    return Strategy("lora", rules, 1e-3, clip=10.0, ema_decay=0.99, adapters=adapters, reasons=reasons)


def make_replay(params: Params, replay_weight: float | None = None, **layers: Any) -> Strategy:
    """Replay of structures with true labels."""
    labels = "structures with their true labels through a second head: keeps pretraining accuracy (recipe)"
    return _with_replay(_base("replay", params, layers), "labels", labels, replay_weight)


def make_pseudo_replay(params: Params, replay_weight: float | None = None, **layers: Any) -> Strategy:
    """Replay of structures labelled by the frozen model."""
    labels = "labels of the frozen model, through a second head: as good as true ones; diversity matters more (recipe)"
    return _with_replay(_base("pseudo-replay", params, layers), "model", labels, replay_weight)


def _with_replay(strategy: Strategy, replay: Any, why: str, weight: float | None) -> Strategy:
    reasons = {
        **strategy.reasons,
        **_OWN,
        "learning_rate": "recipe: 1e-4 for replay",
        "ema_decay": "recipe: 0.9999 for replay (its rate is higher in the first steps)",
        "clip": "recipe: 1.0 for replay",
        "replay": why,
        "replay_weight": "both tasks alike" if weight is None else GIVEN,
        "anchor_weight": "both tasks alike: the anchor is what replay is for",
    }
    return dataclasses.replace(
        strategy,
        replay=replay,
        replay_weight=1.0 if weight is None else float(weight),
        learning_rate=1e-4,
        optimizer=Adam(),
        ema_decay=0.9999,
        anchor_weight=1.0,
        reasons=reasons,
    )


def _base(name: str, params: Params, layers: dict[str, Any]) -> Strategy:
    """All parameters alike, or with the layers treated as ``freeze`` or ``llrd`` do."""
    if "freeze_layers" in layers:
        strategy = make_freeze(params, **layers)
    else:
        strategy = make_llrd(params, **layers) if layers else make_naive(params)
    return dataclasses.replace(strategy, name=name)


def _has_embedding(params: Params) -> bool:
    return any(path.startswith("embedding") for path in tree.flatten_paths(params))
