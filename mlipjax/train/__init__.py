"""Training: states, steps, batches, evaluation, isolated-atom energies and checkpoints."""

from mlipjax.defaults import MAX_SLOTS
from mlipjax.train.batches import LabelledBatches, make_batch
from mlipjax.train.checkpoint import Checkpoints
from mlipjax.train.evaluate import evaluate
from mlipjax.train.fisher import fisher_diagonal
from mlipjax.train.loop import Listener, NonFiniteError, TrainConfig, is_finished, train
from mlipjax.train.metrics import error_report, error_summary
from mlipjax.train.predict import StructurePrediction, predict
from mlipjax.train.program import Program, run_step, validation_loss
from mlipjax.train.recorder import Snapshots, read_metrics
from mlipjax.train.references import E0Estimate, estimate_e0s, read_e0s, set_e0s, settle_e0s, shift_e0s
from mlipjax.train.retention import Retention
from mlipjax.train.state import Batch, TrainState
from mlipjax.train.step import (
    LossGradient,
    StepInfo,
    accumulate,
    apply_gradient,
    fit,
    loss_gradient,
    train_step,
)

__all__ = [
    "MAX_SLOTS",
    "Batch",
    "Checkpoints",
    "E0Estimate",
    "LabelledBatches",
    "Listener",
    "LossGradient",
    "NonFiniteError",
    "Program",
    "Retention",
    "Snapshots",
    "StepInfo",
    "StructurePrediction",
    "TrainConfig",
    "TrainState",
    "accumulate",
    "apply_gradient",
    "error_report",
    "error_summary",
    "estimate_e0s",
    "evaluate",
    "fisher_diagonal",
    "fit",
    "is_finished",
    "loss_gradient",
    "make_batch",
    "predict",
    "read_e0s",
    "read_metrics",
    "run_step",
    "set_e0s",
    "settle_e0s",
    "shift_e0s",
    "train",
    "train_step",
    "validation_loss",
]
