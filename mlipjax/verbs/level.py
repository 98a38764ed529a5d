"""Level of theory of a published model, against labelled structures."""

from __future__ import annotations

from mlipjax.data import Dataset
from mlipjax.elements import listed
from mlipjax.models.registry import find_known
from mlipjax.notices import notice

_LIGANDS = {8, 9}


def say_level(model: str, dataset: Dataset) -> None:
    """Say of a model of DFT+U which structures have a U there: labels without it are of another level of theory.

    Args:
        model: its name; nothing is known of models that are not published under one.
        dataset: labelled structures.
    """
    entry = find_known(model)
    if entry is None or not entry.hubbard_u:
        return
    elements = [set(map(int, system.atomic_numbers)) for system in dataset.systems]
    with_u = [sorted(found & set(entry.hubbard_elements)) for found in elements if found & _LIGANDS]
    if n := sum(map(bool, with_u)):
        notice(
            f"{model} was trained on {entry.functional}: {n} of {len(dataset)} structures hold "
            f"{listed(sorted({z for found in with_u for z in found}))} with O or F, which have a U there. Labels "
            'without the same U have another zero of energy (e0s="estimate" takes it from the data) and other forces.'
        )
