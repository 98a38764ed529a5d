"""Batches of a list of structures, for one pass over all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mlipjax.graph.batch import GraphBatch
from mlipjax.graph.host import neighbor_tables
from mlipjax.graph.pad import batch_graphs
from mlipjax.graph.plan import plan_batches
from mlipjax.system import System

_SLOTS = 60_000


def batches_of(
    systems: Sequence[System],
    cutoff: float,
    *,
    batch_size: int = 16,
    max_slots: int = _SLOTS,
    head: int = 0,
    dtype: Any = "float32",
) -> Iterator[tuple[tuple[int, ...], GraphBatch]]:
    """Yield batches of one shape, with the places of their structures: frames of MD differ little.

    Args:
        systems: structures.
        cutoff: Å.
        batch_size: structures in a batch, fewer where they are large.
        max_slots: atoms times neighbour slots of a batch at most, as far as the largest structure allows.
        head: that the structures are evaluated with.
        dtype: of positions and cells.
    """
    tables = list(neighbor_tables(systems, cutoff))
    largest = max(table.n_atoms * max(table.max_count, 1) for table in tables)
    size = max(1, min(batch_size, len(systems), max_slots // largest))
    counts = [table.n_atoms for table in tables], [table.max_count for table in tables]
    for plan in plan_batches(*counts, size, n_widths=1):
        graph = batch_graphs(
            [systems[i] for i in plan.indices],
            cutoff,
            **plan.sizes,
            heads=[head] * len(plan.indices),
            tables=[tables[i] for i in plan.indices],
            dtype=np.dtype(dtype),
        )
        yield plan.indices, graph
