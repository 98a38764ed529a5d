"""Parameter groups as data: ordered ``(regex, Group)`` rules over parameter paths; ``None`` freezes.

Frozen leaves are taken out of the tree that is differentiated and updated, so they cost nothing and stay the same
to the last bit. The learning rate of the other leaves is multiplied by ``scale * decay ** power`` of their group:
``power`` counts layers below the readout for layer-wise decay, ``scale`` holds a table's entry. ``decay`` and the
scales are numbers of a run (``Hyper``), so they can be traced: differentiated, or swept over with ``vmap``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from mlipjax import tree
from mlipjax.typing import Array, Params


class Group(NamedTuple):
    """Learning-rate multiplier ``scale * decay ** power`` of some parameters."""

    scale: float = 1.0
    power: int = 0


Rules = Sequence[tuple[str, Group | None]]
"""The first rule whose pattern matches a parameter's whole path holds; every parameter must match one."""


def split(params: Params, rules: Rules) -> tuple[Any, Any]:
    """Return ``(trainable, frozen)``: ``params`` with ``None`` in place of the other part's leaves.

    JAX and optax take ``None`` as an empty subtree.

    Raises:
        ValueError: if a parameter matches no rule, a rule takes no parameter, or nothing is left to train.
    """
    groups = tree.match_paths(tree.flatten_paths(params), rules)
    flat = tree.flatten_paths(params)
    if all(group is None for group in groups.values()):
        raise ValueError(f"all {len(flat)} parameters are frozen; leave at least one rule without None.")
    trainable = {path: leaf if groups[path] is not None else None for path, leaf in flat.items()}
    frozen = {path: leaf if groups[path] is None else None for path, leaf in flat.items()}
    return tree.unflatten_paths(trainable), tree.unflatten_paths(frozen)


def merge(trainable: Any, frozen: Any) -> Any:
    """Inverse of ``split``."""
    return jax.tree.map(lambda a, b: b if a is None else a, trainable, frozen, is_leaf=lambda leaf: leaf is None)


def group_multipliers(trainable: Any, rules: Rules, decay: float | Array, scales: Sequence[float] | Array) -> Any:
    """Return the learning-rate multiplier of every trainable leaf, in a tree of scalars.

    Args:
        trainable: tree with ``None`` for frozen leaves, as ``split`` returns.
        rules: the rules it was split with.
        decay: base of ``decay ** power``.
        scales: factor of each rule, in order (frozen rules' entries are not read).
    """
    indexed = [(pattern, index) for index, (pattern, _) in enumerate(rules)]
    indices = tree.match_paths(tree.flatten_paths(trainable), indexed)

    def multiplier(path: str, leaf: Any) -> Any:
        group = rules[indices[path]][1]
        if leaf is None or group is None:
            return None
        return scales[indices[path]] * decay**group.power

    flat = tree.flatten_paths(trainable)
    return tree.unflatten_paths({path: multiplier(path, leaf) for path, leaf in flat.items()})
