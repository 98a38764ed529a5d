"""Neighbour tables, padded batches and size buckets."""

from mlipjax.graph.batch import GraphBatch, edge_vectors, fold_graphs
from mlipjax.graph.device import (
    DenseTable,
    DeviceTableSpec,
    build_table,
    graph_from_table,
    needs_rebuild,
    with_table,
)
from mlipjax.graph.host import NeighborTable, neighbor_table
from mlipjax.graph.pad import Buckets, batch_graphs, bucket_size
from mlipjax.graph.plan import BatchPlan, plan_batches, shuffle_plan

__all__ = [
    "BatchPlan",
    "Buckets",
    "DenseTable",
    "DeviceTableSpec",
    "GraphBatch",
    "NeighborTable",
    "batch_graphs",
    "bucket_size",
    "build_table",
    "edge_vectors",
    "fold_graphs",
    "graph_from_table",
    "needs_rebuild",
    "neighbor_table",
    "plan_batches",
    "shuffle_plan",
    "with_table",
]
