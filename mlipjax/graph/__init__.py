"""Neighbour tables, padded batches and size buckets."""

from mlipjax.graph.batch import GraphBatch, edge_vectors, fold_graphs, join_graphs
from mlipjax.graph.device import (
    DenseTable,
    build_table,
    graph_from_table,
    needs_rebuild,
)
from mlipjax.graph.host import CoincidingAtoms, NeighborTable, coincidences, neighbor_table, neighbor_tables
from mlipjax.graph.pad import Near, batch_graphs, bucket_size, cells_away, near_origin, neighbor_bucket, way_of
from mlipjax.graph.plan import BatchPlan, plan_batches, shuffle_plan
from mlipjax.graph.sets import batches_of
from mlipjax.graph.verlet import VerletSpec, pack_edges

__all__ = [
    "BatchPlan",
    "CoincidingAtoms",
    "DenseTable",
    "GraphBatch",
    "Near",
    "NeighborTable",
    "VerletSpec",
    "batch_graphs",
    "batches_of",
    "bucket_size",
    "build_table",
    "cells_away",
    "coincidences",
    "edge_vectors",
    "fold_graphs",
    "graph_from_table",
    "join_graphs",
    "near_origin",
    "needs_rebuild",
    "neighbor_bucket",
    "neighbor_table",
    "neighbor_tables",
    "pack_edges",
    "plan_batches",
    "shuffle_plan",
    "way_of",
]
