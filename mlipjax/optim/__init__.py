"""Optimisers: parameter groups as data, schedules, and fine-tuning strategies with their default settings."""

from mlipjax.optim.groups import Group, Rules, group_multipliers, merge, split
from mlipjax.optim.optimizer import Hyper, Optimizer, OptimizerConfig, ema_update, make_optimizer
from mlipjax.optim.schedules import schedule_factor
from mlipjax.optim.strategies import STRATEGIES, Strategy, make_strategy

__all__ = [
    "STRATEGIES",
    "Group",
    "Hyper",
    "Optimizer",
    "OptimizerConfig",
    "Rules",
    "Strategy",
    "ema_update",
    "group_multipliers",
    "make_optimizer",
    "make_strategy",
    "merge",
    "schedule_factor",
    "split",
]
