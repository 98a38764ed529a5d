"""``--head``: which energy head of a model a command uses."""

from __future__ import annotations

from mlipjax.models import load
from mlipjax.models.heads import head_index, with_first_head
from mlipjax.notices import notice
from mlipjax.potential import Potential
from mlipjax.typing import Params


def choose_head(potential: Potential, name: str | None) -> int:
    """Index of the head called ``name``, the first by default; with several heads the one taken is said.

    Raises:
        ValueError: if there is no such head.
    """
    index = head_index(potential, name)
    if name is None and len(potential.heads) > 1:
        heads = ", ".join(potential.heads)
        notice(f"this model has the heads {heads}; {potential.heads[0]} is used (--head NAME chooses another).")
    return index


def load_head(model: str, name: str | None) -> tuple[Potential, Params]:
    """Load a model with the chosen head first, so that it is the one everything uses.

    Raises:
        ValueError, FileNotFoundError: if there is no such model or head.
    """
    potential, params = load(model)
    choose_head(potential, name)
    return with_first_head(potential, name), params


def say_heads_are_alike(potential: Potential) -> None:
    """For commands that read features: no head is chosen, as all read their energies from the same features."""
    if len(potential.heads) > 1:
        notice(f"the heads {', '.join(potential.heads)} of this model share their features; none has to be chosen.")


__all__ = ["choose_head", "load_head", "say_heads_are_alike"]
