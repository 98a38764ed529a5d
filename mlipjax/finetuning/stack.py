"""Labelled frames as a compiled loop trains on them."""

from __future__ import annotations

from flax import struct

from mlipjax.graph import GraphBatch
from mlipjax.system import Labels
from mlipjax.typing import Array, Bool


@struct.dataclass
class FrameStack:
    """Frames of equal padded sizes, C of them.

    Attributes:
        graphs: one structure each, with a leading axis C.
        labels: with a leading axis C; energies without isolated-atom energies.
        labelled: (C,) frames to train on.
        batch_size: of them in every optimiser step (static).
    """

    graphs: GraphBatch
    labels: Labels
    labelled: Bool[Array, " C"]
    batch_size: int = struct.field(pytree_node=False)
