"""Indices of whole frames: what a monitor says of a batch of structures."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from mlipjax.graph import GraphBatch
from mlipjax.monitoring.charts import MonitorState, atom_indices
from mlipjax.precision import exact
from mlipjax.typing import Array, Bool, Features, Float, Int


@struct.dataclass
class Readings:
    """Indices of a batch of G frames with N atoms of S elements.

    Attributes:
        q, t2, combined: (N,) of every atom (``charts.atom_indices``); zero for padding.
        element_q, element_t2: (G, S) means over the atoms of an element; NaN where a frame has none.
        element_worst: (G, S) largest combined index among them; NaN where a frame has none.
        frame: (G, 4) ``charts.FRAME_INDICES``: the means over all atoms of Q / Q_lim, of T² / T²_lim and of their
            sum (the combined index), and the largest combined index of an atom; zero for padding frames.
        alarm: (G, 4) whether each of them exceeds its limit, or is not a number.
    """

    q: Float[Array, " N"]
    t2: Float[Array, " N"]
    combined: Float[Array, " N"]
    element_q: Float[Array, "G S"]
    element_t2: Float[Array, "G S"]
    element_worst: Float[Array, "G S"]
    frame: Float[Array, "G 4"]
    alarm: Bool[Array, "G 4"]


def read(charts: MonitorState, features: Features, species: Int[Array, " N"], graph: GraphBatch) -> Readings:
    """Read the charts for a batch; pure, of fixed shapes, without gradient.

    An atom of an element without a chart makes every index of its frame NaN, and a NaN is an alarm: what the monitor
    has never seen is not in control.

    Args:
        charts: fitted, with limits.
        features: (N, F), those that were charted.
        species: (N,) element row of each atom; negative for an element without one.
        graph: says which atoms belong to which frame.
    """
    charts, features = jax.lax.stop_gradient((charts, features))
    atoms, real = atom_indices(charts, features, species), graph.atom_mask
    q, t2, combined = (jnp.where(real, index, 0.0) for index in (atoms.q, atoms.t2, atoms.combined))
    rows = jnp.where(real, species, -1)
    of_element = rows[:, None] == jnp.arange(charts.count.shape[0])[None, :]
    of_frame = real[:, None] & (graph.graph_index[:, None] == jnp.arange(graph.cells.shape[0])[None, :])
    relative_q = jnp.where(real, q / charts.q_limit[species], 0.0)
    relative_t2 = jnp.where(real, t2 / charts.t2_limit[species], 0.0)
    frame = jnp.stack(
        [*(_means(of_frame, values) for values in (relative_q, relative_t2, combined)), _largest(of_frame, combined)],
        axis=-1,
    )
    frame = jnp.where(graph.graph_mask[:, None], frame, 0.0)
    return Readings(
        q=q,
        t2=t2,
        combined=combined,
        element_q=_means(of_frame, q, of_element),
        element_t2=_means(of_frame, t2, of_element),
        element_worst=_largest(of_frame, combined, of_element),
        frame=frame,
        alarm=~(frame <= charts.frame_limits[None, :]) & graph.graph_mask[:, None],
    )


def contributions(readings: Readings, graph: GraphBatch) -> Float[Array, " N"]:
    """Share of every atom in the combined index of its frame: (N,), they sum to 1 over the atoms of a frame."""
    per_atom = readings.frame[:, 2] * jnp.maximum(graph.n_atoms, 1)
    share = readings.combined / per_atom[graph.graph_index]
    return jnp.where(graph.atom_mask, share, 0.0)


@exact
def _means(of_frame: Array, values: Array, of_element: Array | None = None) -> Array:
    """Means over the atoms of each frame (and element); products with matrices of ones, no scatter."""
    member = of_frame.T.astype(values.dtype)
    if of_element is None:
        # a sum, not a product: NaN of one frame must not reach the others
        total = jnp.sum(jnp.where(of_frame, values[:, None], 0.0), axis=0)
        return total / jnp.maximum(jnp.sum(member, axis=1), 1.0)
    known = jnp.where(jnp.isnan(values), 0.0, values)
    total = member @ jnp.where(of_element, known[:, None], 0.0)
    count = member @ of_element.astype(values.dtype)
    unknown = member @ (of_element & jnp.isnan(values)[:, None]).astype(values.dtype)
    return jnp.where((count > 0.0) & (unknown == 0.0), total / jnp.maximum(count, 1.0), jnp.nan)


def _largest(of_frame: Array, values: Array, of_element: Array | None = None) -> Array:
    """Largest value among the atoms of each frame (and element); a NaN wins."""
    if of_element is None:
        return jnp.max(jnp.where(of_frame, values[:, None], -jnp.inf), axis=0)
    inside = of_frame[:, :, None] & of_element[:, None, :]
    largest = jnp.max(jnp.where(inside, values[:, None, None], -jnp.inf), axis=0)
    return jnp.where(jnp.isneginf(largest), jnp.nan, largest)
