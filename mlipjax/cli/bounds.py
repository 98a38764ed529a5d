"""Ranges of the numbers that options take, by name: one table for all commands, checked before a command runs.

An option means the same in every command that has it, so its bounds are said once. They keep out what no command could
honour (no number at all, a negative count, more than any computer holds); what fits model and data is for the command.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Range(NamedTuple):
    """Smallest and largest value; with ``open`` neither of the two is allowed."""

    low: float
    high: float
    unit: str = ""
    open: bool = False

    def holds(self, value: float) -> bool:
        """Return whether a number lies within; NaN does not."""
        return self.low < value < self.high if self.open else self.low <= value <= self.high

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        words = "more than {:.15g} and less than {:.15g}" if self.open else "between {:.15g} and {:.15g}"
        return words.format(self.low, self.high) + unit


_COUNT = Range(1, 10**9)
_SIZE = Range(1, 2**20)
_SHARE = Range(0, 1, open=True)
_WEIGHT = Range(0, 1e12)

OPTIONS: dict[str, Range] = {
    "age_weight": Range(0, 1000, open=True),
    "alarm_readings": _COUNT,
    "anchor_weight": _WEIGHT,
    "barostat_damping": Range(0, 1e9, "fs", open=True),
    "batch_size": _SIZE,
    "beads": Range(1, 4096),
    "bond_factor": Range(0, 100, open=True),
    "clip": Range(0, 1e12, open=True),
    "closest": Range(0, 2),
    "committee": Range(1, 256),
    "components": Range(1, 4096),
    "cutoff": Range(0, 1000, "Å", open=True),
    "damping": Range(0, 1e9, "fs", open=True),
    "denoise": Range(0, 10, "Å"),
    "denoise_batch_size": _SIZE,
    "denoise_share": _SHARE,
    "ema_decay": Range(0, 0.999999),
    "energy_weight": _WEIGHT,
    "epochs": Range(1, 10**6),
    "every": _COUNT,
    "ewc": _WEIGHT,
    "fmax": Range(0, 1000, "eV/Å", open=True),
    "force_field_share": _SHARE,
    "forces_weight": _WEIGHT,
    "frame_spacing": Range(0, 1e6, "fs", open=True),
    "frames": Range(1, 10**6),
    "freeze_layers": Range(0, 64),
    "friction": Range(0, 1e6, "1/ps", open=True),
    "generated": Range(1, 10**7),
    "hottest": Range(0, 1e9, open=True),
    "hvp_weight": _WEIGHT,
    "interface": Range(0, 10**6),
    "l2sp": _WEIGHT,
    "labels_per_round": _SIZE,
    "largest_force_std": Range(0, 1000, "eV/Å", open=True),
    "layer": Range(-64, 63),
    "layer_decay": Range(0, 1000, open=True),
    "layer_multipliers": Range(0, 1000),
    "learning_rate": Range(0, 1000, open=True),
    "level": _SHARE,
    "lora_rank": Range(1, 4096),
    "lr": Range(0, 1000, open=True),
    "max_atoms": Range(10, 10**7),
    "max_slots": Range(1, 2**31),
    "monitor_every": _COUNT,
    "moves": Range(0, 4096),
    "n_images": Range(2, 1000),
    "pairs": Range(2, 10**6),
    "patience": Range(1, 10**6),
    "perplexities": Range(1, 10**6),
    "points": Range(2, 100_000),
    "pressure": Range(-1e9, 1e9),
    "processes": Range(1, 10_000),
    "products": Range(0, 10**7),
    "property_batch_size": _SIZE,
    "property_delta": Range(0, 1e9, open=True),
    "property_hidden": Range(1, 4096),
    "rattle": Range(0, 10, "Å"),
    "rattles": Range(0, 10**6),
    "repeat": Range(1, 10_000),
    "replay_size": Range(2, 10**6),
    "replay_weight": _WEIGHT,
    "replicas": Range(1, 100_000),
    "resamples": Range(2, 10**6),
    "reservoirs": Range(-1e6, 1e6, "eV"),
    "rounds": Range(1, 100_000),
    "run": Range(0, 10**9),
    "sample_factor": Range(1, 1000),
    "seed": Range(0, 2**32 - 1),
    "site": Range(0, 2_000_000),
    "snapshots": Range(0, 10_000),
    "spacing_ps": Range(0, 1e9, "ps", open=True),
    "spring": Range(0, 1e6, "eV/Å^2", open=True),
    "steps": Range(1, 10**12),
    "strain": Range(0, 0.5),
    "stress_weight": _WEIGHT,
    "surface": Range(2, 10_000),
    "temperature": Range(0, 1e6, "K", open=True),
    "temperatures": Range(0, 1e6, "K", open=True),
    "test_fraction": _SHARE,
    "test_ps": Range(0, 1e6, "ps", open=True),
    "timestep": Range(0, 1000, "fs", open=True),
    "train_steps": Range(1, 10**9),
    "trajectories": Range(1, 10**6),
    "tsne_seeds": Range(0, 1000),
    "until_alarm_rate": _SHARE,
    "until_force_rmse": Range(0, 1e6, "meV/Å", open=True),
    "valid_fraction": Range(0, 0.99),
    "validate_every": _COUNT,
    "vector": Range(-1000, 1000),
    "workers": Range(1, 10_000),
}
"""Ranges of all options that take numbers; several numbers each lie in it."""


def check_arguments(arguments: Sequence[str]) -> None:
    """Refuse an option whose number no command could honour, as it is typed, and empty words.

    A path without a name is the current folder, which nobody means by an unset variable of the shell. Words that are no
    numbers are left to the parser of the command line.

    Args:
        arguments: words of the command line, such as ``["--steps", "-5", "--repeat", "1", "0", "1"]``.

    Raises:
        ValueError: naming the option, what was found and what is expected.
    """
    typed, allowed = "", None
    for word in arguments:
        value = word
        if word.startswith("--"):
            typed, _, value = word.partition("=")
            allowed = OPTIONS.get(typed[2:].replace("-", "_"))
        if not value and (not word or "=" in word):
            raise ValueError(f"{typed or 'a word'} is empty: give a value, or leave it out (is a variable unset?).")
        number = _number(value)
        if allowed is not None and number is not None and not allowed.holds(number):
            raise ValueError(f"{typed} must be {allowed}, found {value}.")


def option(name: str) -> str:
    """Spell the name of a field as it is typed."""
    return f"--{name.replace('_', '-')}"


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None
