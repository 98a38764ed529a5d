"""Optimisers: parameter groups as data, schedules, and fine-tuning strategies with their default settings."""

from mlipjax.optim.directions import Adam, Direction, Muon
from mlipjax.optim.groups import Group, group_multipliers, merge, split
from mlipjax.optim.lora import Adapters, adapt, merge_adapters
from mlipjax.optim.modes import MODES, make_mode, published_multipliers
from mlipjax.optim.optimizer import Hyper, Optimizer, OptimizerConfig, ema_update, schedule_factor
from mlipjax.optim.recipes import STRATEGIES, choose_strategy, make_strategy
from mlipjax.optim.strategies import Strategy

__all__ = [
    "MODES",
    "STRATEGIES",
    "Adam",
    "Adapters",
    "Direction",
    "Group",
    "Hyper",
    "Muon",
    "Optimizer",
    "OptimizerConfig",
    "Strategy",
    "adapt",
    "choose_strategy",
    "ema_update",
    "group_multipliers",
    "make_mode",
    "make_strategy",
    "merge",
    "merge_adapters",
    "published_multipliers",
    "schedule_factor",
    "split",
]
