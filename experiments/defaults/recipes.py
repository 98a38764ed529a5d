"""Recipes: everything that says how steps are made from gradients, and in which portions the frames come."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from mlipjax.optim import Strategy
from mlipjax.optim.directions import Adam, Muon


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A way to fine-tune all parameters.

    Attributes:
        name: in tables.
        settings: fields of ``FinetuneSettings``.
        strategy: fields of ``Strategy`` that differ from naive fine-tuning as it was (``BEFORE``).
    """

    name: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    strategy: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def change(self, strategy: Strategy) -> Strategy:
        """The strategy of this recipe."""
        return dataclasses.replace(strategy, **self.strategy)


def one(name: str, rate: float, settings: Mapping[str, Any] | None = None, **strategy: Any) -> Recipe:
    """A recipe of one frame per step."""
    return Recipe(name, {"batch_size": 1, **(settings or {})}, {"learning_rate": rate, "optimizer": Adam(), **strategy})


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("before", {"batch_size": 4}, {"learning_rate": 5e-4, "optimizer": Adam()}),
        one("adam", 1e-3),
        one("adam-5e-4", 5e-4),
        one("adam-2e-3", 2e-3),
        one("muon", 1e-3, optimizer=Muon()),
        one("muon-6e-4", 6e-4, optimizer=Muon()),
        one("muon-2e-3", 2e-3, optimizer=Muon()),
        one("muon-momentum-0.9", 1e-3, optimizer=Muon(0.9)),
        one("muon-mse", 1e-3, {"loss": "mse"}, optimizer=Muon()),
        one("muon-energy-0.1", 1e-3, {"energy_weight": 0.1}, optimizer=Muon()),
        one("muon-llrd", 1e-3, {"strategy": "llrd"}, optimizer=Muon()),
        one("muon-warmup-0.3", 1e-3, optimizer=Muon(), warmup_fraction=0.3),
        Recipe("muon-batch-2", {"batch_size": 2}, {"learning_rate": 1e-3, "optimizer": Muon()}),
        Recipe("adam-batch-4", {"batch_size": 4}, {"learning_rate": 1e-3, "optimizer": Adam()}),
        Recipe("muon-batch-4", {"batch_size": 4}, {"learning_rate": 1e-3, "optimizer": Muon()}),
    )
}
"""By name."""
