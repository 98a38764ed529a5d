"""What a fine-tune does about what the model knew before: structures it replays, and structures it is measured on."""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np

from mlipjax.graph import BatchPlan
from mlipjax.train.batches import LabelledBatches
from mlipjax.typing import Key


@dataclasses.dataclass(frozen=True)
class Retention:
    """Replayed and anchor structures of a run; either may be absent.

    Attributes:
        anchor: structures on which the retained error is measured after every epoch.
        anchor_weight: their loss counts this much, beside that of the validation data, for which epoch is kept.
        replay: structures of which every step sees one batch beside the target's.
        replay_weight: factor of their loss.
    """

    anchor: LabelledBatches | None = None
    anchor_weight: float = 0.0
    replay: LabelledBatches | None = None
    replay_weight: float = 1.0

    def replayed_plans(self, key: Key, step: int) -> list[BatchPlan]:
        """Micro-batches replayed in step number ``step`` (from 0): a function of key and step, and of nothing else."""
        if self.replay is None:
            return []
        epoch, within = divmod(step, self.replay.steps_per_epoch)
        name = np.asarray(jax.random.key_data(key)).tobytes(), epoch
        if name not in self._drawn:
            self._drawn.clear()
            # another stream than the order of the training structures
            self._drawn[name] = self.replay.epoch(jax.random.fold_in(key, 0x5E), epoch)
        return self._drawn[name][within]

    @functools.cached_property
    def _drawn(self) -> dict[tuple[bytes, int], list[list[BatchPlan]]]:
        """The current epoch: drawing one takes time in proportion to the structures."""
        return {}
