"""Hessian products that a fine-tune was given: files of them, displaced structures, or a teacher."""

from __future__ import annotations

from typing import Any

from mlipjax.data import Dataset
from mlipjax.data.products import PRODUCT, products_in, products_of_displacements
from mlipjax.dispersion import D3BJ
from mlipjax.notices import notice
from mlipjax.potential import Model
from mlipjax.verbs.inputs import Structures, is_nothing, name_of, open_native, paths_in
from mlipjax.verbs.read import read

_TEACHER = "teacher"


def open_products(hvp: Structures, dispersion: D3BJ | None, **keys: Any) -> Dataset | Model | None:
    """Open what products come from; ``None`` for nothing.

    Args:
        hvp: structures with arrays ``hvp_probe`` and ``hvp``; structures displaced against each other, with forces; or
            ``teacher:MODEL``.
        dispersion: contained in the forces.
        keys: names and units of labels, as of ``read``.

    Raises:
        ValueError, FileNotFoundError: if it cannot be used.
    """
    if is_nothing(hvp):
        return None
    paths = paths_in(hvp)
    if teachers := [path for path in paths if path.partition(":")[0] == _TEACHER]:
        model = teachers[0].partition(":")[2]
        if len(paths) > 1 or not model:
            raise ValueError(f"hvp={' '.join(paths)}: give teacher:MODEL, or files, not both.")
        return open_native(model).first
    dataset = read(hvp, **keys)
    found = products_in(dataset)
    if not len(found):
        return products_of_displacements(dataset if dispersion is None else dispersion.off_dataset(dataset))
    if dispersion is not None:
        raise ValueError(f"{name_of(hvp)}: dispersion is not taken off {PRODUCT!r}; give displaced structures.")
    if len(found) < len(dataset):
        notice(f"{name_of(hvp)}: {len(dataset) - len(found)} of {len(dataset)} structures have no {PRODUCT!r}.")
    return found
