"""Options that decide nothing beside others: one line for those that were given, before a command runs.

What can be known only from model and data is said by the verbs (``notices.say_unused``).
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

from mlipjax.cli.bounds import option
from mlipjax.cli.call import given
from mlipjax.cli.options.common import LABELS
from mlipjax.cli.spec import defaults_of
from mlipjax.notices import notice


class Rule(NamedTuple):
    """Some options of a command, the reason why they decide nothing, and when that is so."""

    options: str
    why: str
    when: Callable[[Any], bool]


def say_unused(name: str, command: Any) -> None:
    """Say which options of a command differ from their defaults, and decide nothing."""
    values, usual = given(command), defaults_of(type(command))
    for rule in RULES.get(name, ()):
        names = [name for name in rule.options.split() if values[name] != usual[name]]
        if names and rule.when(SimpleNamespace(**values)):
            said = ", ".join(option(f"no_{name}" if usual[name] is True else name) for name in names)
            notice(f"{said} {'is' if len(names) == 1 else 'are'} not used: {rule.why}.")


def _foreign(c: Any) -> bool:
    return str(c.model).startswith("ase:")


def _generates(c: Any) -> bool:
    """Tell whether structures are generated, to be replayed or as anchor."""
    replays = c.strategy in ("replay", "pseudo-replay", "mft")
    return c.auto or (replays and c.replay is None) or (not replays and c.anchor == "generated")


_GRID, _PATH = "a grid of the plane is computed (--surface)", "a path is computed, not a grid (--surface)"
_CALCULATOR = "a foreign calculator computes as it does, one structure after the other"
_FORCE_FIELD = "batch_size loss energy_weight forces_weight stress_weight force_field_share prefactors pseudo_labels"

RULES: dict[str, tuple[Rule, ...]] = {
    "compare-representations": (
        Rule("pairs", "features of atoms alone are compared (--kind)", lambda c: c.kind == "nodes"),
        Rule("old", "charts are of the features of atoms (--kind)", lambda c: c.kind == "edges"),
        Rule(
            "perplexities",
            "no t-SNE is made (--tsne-seeds)",
            lambda c: c.tsne_seeds == 0 or (c.tsne_seeds is None and bool(c.run)),
        ),
    ),
    "convert": (Rule(LABELS, "a model has no labels", lambda c: c.model is not None),),
    "engine": (
        Rule("damping", "the ensemble nve has no thermostat", lambda c: c.ensemble == "nve"),
        Rule("dtype", _CALCULATOR, _foreign),
    ),
    "evaluate": (
        Rule(LABELS, "a property has a name of its own (--property)", lambda c: c.property is not None),
        Rule("dtype batch_size max_slots", _CALCULATOR, _foreign),
    ),
    "finetune": (
        Rule(LABELS, "a property has a name of its own (--property)", lambda c: c.property is not None),
        Rule("valid_fraction", "validation data are given (--valid)", lambda c: bool(c.valid)),
        Rule("epochs", "the number of optimiser steps is given (--steps)", lambda c: c.steps is not None),
        Rule(
            _FORCE_FIELD,
            "only the strategy mft trains the force field beside a property",
            lambda c: c.property is not None and c.strategy != "mft",
        ),
        Rule(
            "mixture",
            "the property is the only task",
            lambda c: c.property is not None and c.strategy != "mft" and not c.denoise,
        ),
        Rule("pseudo_labels", "generated structures have no others", lambda c: c.replay is None),
        Rule("denoise_share", "nothing is denoised (--denoise)", lambda c: not c.denoise),
        Rule("replay_size", "no structures are generated", lambda c: not _generates(c)),
        Rule("anchor anchor_weight", "fresh parameters retain nothing", lambda c: c.strategy == "scratch"),
    ),
    "monitor": (
        Rule(
            "level components layers calibration",
            "the charts are fitted already (--reference)",
            lambda c: len(c.reference) == 1 and c.reference[0].suffix == ".npz",
        ),
    ),
    "periodic": (
        Rule(LABELS, "there are no frames from before (--data)", lambda c: not c.data),
        # structures of a file of options have ensembles of their own
        Rule("pressure", "the ensemble has no barostat", lambda c: c.ensemble != "npt" and c.spec is None),
        Rule("workers", "the executor says how many (--executor)", lambda c: c.executor is not None),
        Rule(
            "workers asynchronous",
            "this oracle labels in the process that trains",
            lambda c: c.executor is None and c.oracle.partition(":")[0] in ("teacher", "lj", "sw"),
        ),
        Rule("replay_size", "none are generated", lambda c: c.strategy != "pseudo-replay" or c.replay is not None),
    ),
    "probe": (Rule("structure", "the elements are given (--elements)", lambda c: c.name == "dimer" and c.elements),),
    "predict": (Rule("dtype batch_size max_slots", _CALCULATOR, _foreign),),
    "relax": (Rule("dtype", _CALCULATOR, _foreign),),
    "slide": (
        Rule("vector points", _GRID, lambda c: c.surface is not None),
        Rule("symmetry", _PATH, lambda c: c.surface is None),
        Rule("fmax steps", "nothing relaxes (--no-relaxed)", lambda c: not c.relaxed),
    ),
}  # fmt: skip
"""By command. An option is in a rule if whatever is given for it changes nothing."""
