"""Neighbour tables, padded batches and size buckets."""

from mlipjax.graph.batch import GraphBatch, edge_vectors, fold_graphs
from mlipjax.graph.device import (
    DenseTable,
    DeviceTableSpec,
    build_table,
    graph_from_table,
    needs_rebuild,
)
from mlipjax.graph.host import CoincidingAtoms, NeighborTable, coincidences, neighbor_table, neighbor_tables
from mlipjax.graph.near import Near, cells_away, near_origin, way_of
from mlipjax.graph.pad import batch_graphs, bucket_size
from mlipjax.graph.plan import BatchPlan, plan_batches, shuffle_plan

__all__ = [
    "BatchPlan",
    "CoincidingAtoms",
    "DenseTable",
    "DeviceTableSpec",
    "GraphBatch",
    "Near",
    "NeighborTable",
    "batch_graphs",
    "bucket_size",
    "build_table",
    "cells_away",
    "coincidences",
    "edge_vectors",
    "fold_graphs",
    "graph_from_table",
    "near_origin",
    "needs_rebuild",
    "neighbor_table",
    "neighbor_tables",
    "plan_batches",
    "shuffle_plan",
    "way_of",
]
