"""The four ways of S3 (arXiv 2601.08486) to learn a property from a pretrained potential, on one configuration.

``scratch``: everything from fresh parameters; ``ft``: the property alone, all parameters; ``lp``: the property's head
alone (linear probe); ``mft``: property and force field together, so that the model keeps what it knew. Any but ``lp``
may decay the learning rate by depth: with a constant ratio, a factor per layer, or the published table.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from mlipjax import tree
from mlipjax.nn.readouts import GROUP, STATISTICS
from mlipjax.optim.groups import Group, Rules, split
from mlipjax.optim.recipes import layer_count
from mlipjax.optim.strategies import GIVEN, Strategy
from mlipjax.typing import Params

MODES = ("scratch", "ft", "lp", "mft")
"""Ways to a property: from fresh parameters, all of them, the head alone, or together with the force field."""

PUBLISHED_EMBEDDING, PUBLISHED_LAYERS = 0.30, (0.30, 0.40, 0.55, 0.625)
"""Learning-rate multipliers of S3's second model family, four blocks deep."""

STATISTICS_RULE = f"{GROUP}[^/]*/{STATISTICS}/.*"

_REASONS = {
    "optimizer": "S3: Adam",
    "learning_rate": "S3: 1e-3",
    "schedule": "S3: exponential",
    "final_factor": "S3: 1e-3 -> 1e-5",
    "clip": "S3: 5",
    "warmup_fraction": "Adam's second moments need some tens of steps to settle",
    "ema_decay": "averages over the draw of tasks; its rate is higher in the first steps",
}
_WHAT = {
    "scratch": "all parameters, initialised anew; force-field readouts stand still",
    "ft": "all parameters but force-field readouts, which the property does not use",
    "lp": "the property's head; every parameter of the backbone stays bit for bit",
    "mft": "all parameters, the force-field readouts by the force field's steps",
}


def published_multipliers(n_layers: int) -> tuple[float, ...]:
    """S3's table for a model of ``n_layers`` layers: interpolated at the same relative depths."""
    places = np.linspace(0.0, 1.0, len(PUBLISHED_LAYERS))
    depths = np.linspace(0.0, 1.0, n_layers) if n_layers > 1 else np.array([1.0])
    return tuple(float(value) for value in np.interp(depths, places, PUBLISHED_LAYERS))


def make_mode(
    name: str,
    params: Params,
    *,
    layer_decay: float | None = None,
    layer_multipliers: Sequence[float] | None = None,
) -> Strategy:
    """Return the strategy of a mode, for parameters that have their property heads already.

    Args:
        name: one of ``MODES``.
        params: ``layer_<i>/...`` below ``readout...`` and ``property_...``; anything else counts as embedding.
        layer_decay: ratio of the learning rates of neighbouring layers, in (0, 1].
        layer_multipliers: one factor per layer from the bottom instead (``published_multipliers``).

    Raises:
        ValueError: for an unknown mode, or options that do not fit it or the layers.
    """
    if name not in MODES:
        raise ValueError(f"unknown mode {name!r}; choose one of {', '.join(MODES)}.")
    given = layer_decay is not None or layer_multipliers is not None
    if given and name == "lp":
        raise ValueError("lp trains no layers: leave layer_decay, layer_multipliers and published_decay out.")
    if layer_decay is not None and layer_multipliers is not None:
        raise ValueError(f"layer_decay={layer_decay} and multipliers of layers are two tables; give one of them.")
    readouts = ("readout.*", Group() if name == "mft" else None)
    layers = _layers(name, params, layer_decay, layer_multipliers)
    # heads for vectors have none
    measured = any(re.fullmatch(STATISTICS_RULE, path) for path in tree.flatten_paths(params))
    statistics: Rules = ((STATISTICS_RULE, None),) if measured else ()
    rules: Rules = (*statistics, (f"{GROUP}.*", Group()), readouts, *layers)
    split(params, rules)
    reasons = {**_REASONS, "rules": _WHAT[name] + (f"; layer-wise rates {GIVEN}" if given else "")}
    return Strategy(
        name,
        rules,
        learning_rate=1e-3,
        decay=1.0 if layer_decay is None else layer_decay,
        schedule="exponential",
        final_factor=0.01,
        warmup_fraction=0.02,
        clip=5.0,
        from_scratch=name == "scratch",
        reasons=reasons,
    )


def _layers(
    name: str, params: Params, layer_decay: float | None, layer_multipliers: Sequence[float] | None
) -> list[tuple[str, Group | None]]:
    if name == "lp":
        return [(tree.EVERYTHING, None)]
    if layer_decay is None and layer_multipliers is None:
        return [(tree.EVERYTHING, Group())]
    n = layer_count(params)
    if layer_multipliers is None:
        if layer_decay is None or not 0.0 < layer_decay <= 1.0:
            raise ValueError(f"layer_decay must lie in (0, 1], found {layer_decay}.")
        groups, embedding = [Group(power=n - layer) for layer in range(n)], Group(power=n)
    else:
        if len(layer_multipliers) != n or any(value < 0.0 for value in layer_multipliers):
            raise ValueError(f"layer_multipliers needs {n} numbers >= 0, one per layer; found {layer_multipliers}.")
        groups = [Group(scale=float(value)) for value in layer_multipliers]
        embedding = Group(scale=min(PUBLISHED_EMBEDDING, groups[0].scale))
    return [*((f"layer_{i}/.*", group) for i, group in enumerate(groups)), (tree.EVERYTHING, embedding)]
