"""Which parameters of a run are kept: those with the lowest loss on validation and anchor structures together."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from mlipjax.optim import Hyper
from mlipjax.train.batches import LabelledBatches
from mlipjax.train.metrics import error_summary
from mlipjax.train.program import Program, validation_loss
from mlipjax.train.retention import Retention
from mlipjax.train.state import TrainState
from mlipjax.typing import Params


class NonFiniteError(RuntimeError):
    """Loss or gradient became NaN or infinite; the message says where, and which frames were saved."""


@dataclasses.dataclass(frozen=True, eq=False)
class Judge:
    """What parameters are judged by.

    Attributes:
        program: compiled pieces.
        valid: validation structures; ``None`` prefers the latest parameters to all earlier ones.
        retention: anchor structures, whose loss counts ``anchor_weight``.
        hyper: weights of the loss.
    """

    program: Program
    valid: LabelledBatches | None
    retention: Retention
    hyper: Hyper

    def losses(self, params: Params) -> dict[str, Any]:
        """Losses and errors: ``valid_loss``, ``anchor_loss`` (``None`` without such structures) and ``score``."""
        record: dict[str, Any] = {"valid_loss": None, "anchor_loss": None, "score": None}
        if (anchor := self.retention.anchor) is not None:
            retained, found = validation_loss(self.program, params, anchor, self.hyper.weights)
            errors = {f"anchor_{name}": value for name, value in error_summary(anchor.dataset, found).items()}
            record |= {"anchor_loss": retained, **errors}
        if self.valid is None:
            return record
        loss, predictions = validation_loss(self.program, params, self.valid, self.hyper.weights)
        score = loss if anchor is None else loss + self.retention.anchor_weight * record["anchor_loss"]
        return {**record, "valid_loss": loss, **error_summary(self.valid.dataset, predictions), "score": score}

    def consider(self, state: TrainState, epoch: int) -> tuple[TrainState, dict[str, Any]]:
        """Judge the averaged parameters, and keep them if they are the best so far.

        The parameters before training are given up as soon as the validation loss falls below theirs, whatever the
        anchor says: they remember everything, and nothing could be learned against that. Afterwards the score decides.

        Raises:
            NonFiniteError: if a loss is not finite.
        """
        record = {"epoch": epoch, "step": int(state.step), "train_loss": None, **self.losses(state.ema_params)}
        score = record["score"]
        if score is not None and not math.isfinite(score):
            raise NonFiniteError(
                f"epoch {epoch}: the validation loss is {record['valid_loss']:g}, the anchor loss "
                f"{record['anchor_loss']}. Lower the learning rate."
            )
        untrained = int(state.best_epoch) == 0
        if score is None or (record["valid_loss"] if untrained else score) < float(state.best_metric):
            metric = record["valid_loss"] if epoch == 0 else score
            state = dataclasses.replace(
                state,
                best_metric=state.best_metric if score is None else jnp.asarray(metric, state.best_metric.dtype),
                best_epoch=jnp.asarray(epoch, jnp.int32),
                best_params=state.ema_params,
            )
        return state, {**record, "best_epoch": int(state.best_epoch)}


def explain_choice(best: dict[str, Any], records: Sequence[dict[str, Any]]) -> str:
    """Say in one sentence why an epoch was kept.

    Args:
        best: losses of the epoch kept, as in its record.
        records: of all epochs, from 1.
    """
    epochs = len(records)
    if best["valid_loss"] is None:
        return f"epoch {best['epoch']} of {epochs} is kept, the last one: there are no validation structures"
    name = f"epoch {best['epoch']} of {epochs}"
    if best["epoch"] == 0:
        name = f"epoch 0 of {epochs}, the model before training,"
    lowest = min([*records, best], key=lambda record: record["valid_loss"])
    if lowest["valid_loss"] < best["valid_loss"]:
        return (
            f"{name} was best by validation and anchor together (score {best['score']:.4g}); epoch {lowest['epoch']} "
            f"has the lower validation loss ({lowest['valid_loss']:.4g} against {best['valid_loss']:.4g}) but forgot "
            f"more (anchor loss {lowest['anchor_loss']:.4g} against {best['anchor_loss']:.4g}, score "
            f"{lowest['score']:.4g})"
        )
    if best["epoch"] == 0:
        return f"{name} was best: nothing was gained by training"
    return f"{name} was best"


__all__ = ["Judge", "NonFiniteError", "explain_choice"]
